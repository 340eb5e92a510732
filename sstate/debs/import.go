package debs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"
)

// Link says how Import may bring a deb in.
type Link string

// The ways. Hard and LinkReflink refuse a deb that cannot come so.
const (
	LinkSafe    Link = "safe"    // a hard link where the inner side can neither own nor write DL's file, else shared blocks, else a copy
	LinkHard    Link = "hard"    // the first of these only; what would be unsafe is refused all the same
	LinkReflink Link = "reflink" // shared blocks only
	LinkCopy    Link = "copy"    // bytes of its own
)

// ArchivesMode says how open Import makes apt's archives.
type ArchivesMode string

// The modes. Export sets the archives back to 0755.
const (
	Mode0777 ArchivesMode = "0777" // what the inner users of apt and sbuild need, whoever they are
	Mode1777 ArchivesMode = "1777" // the same, but nobody can remove what is another's
	Mode0755 ArchivesMode = "0755" // inner root only
	ModeACL  ArchivesMode = "acl"  // 0755, and write permission for _apt and sbuild inside and for the caller
)

// ImportOptions say how Import goes about it. The zero value brings all debs in, by LinkSafe and with Mode0777.
type ImportOptions struct {
	Link     Link
	Mode     ArchivesMode
	Needed   *Needed // which debs; nil is all
	Lists    string  // a directory of Packages files to trust in place of the rootfs's own
	DryRun   bool
	Workers  int
	Note     func(string) // told what is waited for; may be nil
	Progress func(done int64)
}

// Imported is what Import did.
type Imported struct {
	DryRun  bool                   `json:"dry_run,omitempty"`
	Brought int                    `json:"brought"`
	Same    int                    `json:"same"`
	Left    int                    `json:"left,omitempty"`    // not asked for
	Damaged []Refusal              `json:"damaged,omitempty"` // stayed behind
	Refused []Refusal              `json:"refused,omitempty"` // could not be brought in
	Methods map[handoff.Method]int `json:"methods,omitempty"`
	Bytes   int64                  `json:"bytes"` // of the debs brought in
	Plan    []Step                 `json:"plan,omitempty"`
}

// String is the summary in one line.
func (s Imported) String() string {
	verb := "imported"
	if s.DryRun {
		verb = "would import"
	}
	text := fmt.Sprintf("%s %d debs, %d bytes; %d were there already", verb, s.Brought, s.Bytes, s.Same)
	if s.Left > 0 {
		text += fmt.Sprintf("; %d were not asked for", s.Left)
	}
	return text
}

// Import lends the debs of the cache at dl to apt in the rootfs at root. It makes apt's archives there with the right owners.
// A cache that does not exist has no debs. A damaged deb stays behind and is in the summary; one that could not be brought in is in a
// *RefusedError, with a valid summary.
func Import(ctx context.Context, env EnvFunc, dl, root string, o ImportOptions) (sum Imported, err error) {
	m := &importer{ImportOptions: o}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.run(ctx, env, dl, root); err != nil {
		return m.sum, fmt.Errorf("import %s: %w", dl, err)
	}
	if len(m.sum.Refused) > 0 {
		return m.sum, &RefusedError{"import " + dl, len(m.there.Files), m.sum.Refused}
	}
	return m.sum, nil
}

// importer is one Import.
type importer struct {
	ImportOptions
	rootfs   *rootfs
	dl       *cache
	there    Listing // DL
	archives Listing
	entered  bool              // archives were listed by a half in the namespace
	rootDev  uint64            // where the archives are, or are going to be
	settling *errand[struct{}] // the archives become what they are to be
	lookup   *errand[Index]    // what the lists say
	digests  *record
	sum      Imported
}

func (m *importer) close() (err error) {
	if m.rootfs != nil {
		err = m.rootfs.Close()
	}
	if m.dl != nil {
		err = errors.Join(err, m.dl.Close())
	}
	return err
}

// defaults fills in and checks the options.
func (m *importer) defaults() error {
	if m.Link == "" {
		m.Link = LinkSafe
	}
	if m.Mode == "" {
		m.Mode = Mode0777
	}
	if !slices.Contains([]Link{LinkSafe, LinkHard, LinkReflink, LinkCopy}, m.Link) {
		return fmt.Errorf("no such way to bring debs in: %q", m.Link)
	}
	if !slices.Contains([]ArchivesMode{Mode0777, Mode1777, Mode0755, ModeACL}, m.Mode) {
		return fmt.Errorf("no such mode for the archives: %q", m.Mode)
	}
	return nil
}

func (m *importer) run(ctx context.Context, env EnvFunc, dl, root string) (err error) {
	if err = m.defaults(); err != nil {
		return err
	}
	if m.dl, err = openCache(dl, m.Note); err != nil {
		return err
	}
	if m.rootfs, err = openRootfs(root, env); err != nil {
		return err
	}
	if m.archives, m.entered, m.there, err = listBoth(ctx, m.rootfs, m.dl); err != nil {
		return err
	}
	if m.rootDev = m.archives.Dir.Dev; !m.archives.Exists {
		if m.rootDev, err = m.rootfs.device(); err != nil {
			return err
		}
	}
	needed, err := m.Needed.filter(ctx, m.rootfs, m.Lists)
	if err != nil {
		return err
	}
	plan := planImport(m.there, m.archives, needed)
	if m.DryRun {
		m.dry(plan)
		return nil
	}
	e, err := env()
	if err != nil {
		return err
	}
	a := m.settleArgs(e)
	m.settling = send(func() (none struct{}, err error) {
		if !m.settled(e, a) {
			none, err = settleHalf.Run(ctx, e, a, nil, m.rootfs.root)
		}
		return none, err
	})
	defer m.settling.wait()
	err = m.apply(ctx, e, plan)
	if err == nil {
		_, err = m.settling.wait()
	}
	return err
}

func (m *importer) dry(plan []Step) {
	m.sum.DryRun, m.sum.Plan = true, plan
	for _, s := range plan {
		switch s.Action {
		case Copy, Replace:
			m.sum.Brought++
			m.sum.Bytes += s.Size
		case Same:
			m.sum.Same++
		case Leave:
			m.sum.Left++
		case Refuse:
			m.sum.Damaged = append(m.sum.Damaged, Refusal{s.File, s.Reason})
		}
	}
}

// settleArgs says what the archives are to be.
func (m *importer) settleArgs(e *userns.Env) settleArgs {
	a := settleArgs{Rest: m.rootfs.rest, Owner: ownerIn(e), Make: true, Mode: archivesMode}
	switch m.Mode {
	case Mode0777:
		a.Mode = 0o777
	case Mode1777:
		a.Mode = 0o1777
	case ModeACL:
		a.Named, a.Caller = true, e.CallerFSIDs().UID
		if e.Direct {
			a.Caller = e.Caller.UID
		}
	}
	return a
}

// settled tells whether the archives are already as a wants them.
func (m *importer) settled(e *userns.Env, a settleArgs) bool {
	l := m.archives
	if !l.Exists || l.Partial == nil || l.ACL != a.Named || a.Named {
		return false
	}
	uid, ok := uint32(0), true
	if !m.entered && !(e.Direct && !e.Arithmetic()) {
		uid, ok = e.Plain.UID.ToOutside(0)
	}
	return ok && l.Dir.UID == uid && l.Dir.Mode&0o7777 == a.Mode
}
