package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nsferry/nsferry/idshift"
)

// Mode says how root inside is reached.
type Mode string

const (
	ModeAuto    Mode = "auto"    // decide from the process's ids and map
	ModeUnshare Mode = "unshare" // a new user namespace for each half
	ModeRoot    Mode = "root"    // real root, or uid 0 of a namespace whose map suffices: no new user namespace
)

// defaultGrace is the time that a cancelled half has to remove what it has half made. Removing a rootfs of 25,600 entries
// takes under two seconds.
const defaultGrace = 10 * time.Second

// Options choose an Env. The zero value is what an ordinary user wants.
type Options struct {
	Mode   string // "auto" (or empty), "unshare", "root"
	Model  string // "base" (or empty), "caller", "identity"
	Map    string // explicit map, see idshift.ParseSpec; replaces the model
	System System // where facts about the machine come from; the zero value is the machine itself
}

// Env is a decision, made once, on how inner code runs: the maps and the way in. It is read-only and safe for
// concurrent use.
type Env struct {
	Mode    Mode            // ModeUnshare or ModeRoot, never ModeAuto
	Plain   idshift.Mapping // inside → outside for foreign code
	Handoff idshift.Mapping // Plain, and what caller and range it leaves out, for halves
	Caller  idshift.Caller  // who runs us, as seen from here
	Direct  bool            // halves run in this process: it is already privileged
	Nested  bool            // this process is itself inside a user namespace
	Grace   time.Duration   // time from cancellation to SIGKILL

	sys System
}

// Arithmetic tells whether trees hold ids that have to be shifted by Plain to become inside ids: real root with an
// explicit map. In every other case the ids a half sees are the inside ids.
func (e *Env) Arithmetic() bool {
	return e.Direct && !e.Nested && !(e.Plain.UID.IsIdentity() && e.Plain.GID.IsIdentity())
}

// NewEnv decides how inner code runs. What the machine lacks is an *EnvError; a malformed option any other error.
// Nothing is started: whether the kernel allows a namespace shows when the first half runs (or Diagnose is asked).
func NewEnv(o Options) (*Env, error) {
	mode := Mode(o.Mode)
	switch mode {
	case "":
		mode = ModeAuto
	case ModeAuto, ModeUnshare, ModeRoot:
	default:
		return nil, &UsageError{fmt.Sprintf("mode %q: want auto, unshare or root", o.Mode)}
	}
	e := &Env{Grace: defaultGrace, sys: o.System.withDefaults()}
	own, err := e.sys.ownMapping()
	if err != nil {
		return nil, err
	}
	e.Nested = !initial(own.UID) || !initial(own.GID)
	root := os.Geteuid() == 0
	if mode == ModeRoot && !root {
		return nil, &EnvError{ID: "mode.root", What: fmt.Sprintf("mode root needs uid 0, this process has uid %d", os.Geteuid()),
			Remedy: "leave out --mode root; nsferry then uses a user namespace"}
	}
	if mode == ModeRoot || mode == ModeAuto && root && (!e.Nested || suffices(own)) {
		return e.asRoot(o, own)
	}
	unshared, err := e.asUnshare(o, own)
	if lacks := (*EnvError)(nil); errors.As(err, &lacks) && mode == ModeAuto && root && enough(own) {
		return e.asRoot(o, own)
	}
	return unshared, err
}

// asRoot fills e for a process that is already privileged.
func (e *Env) asRoot(o Options, own idshift.Mapping) (*Env, error) {
	e.Mode, e.Direct = ModeRoot, true
	if e.Nested && !enough(own) {
		return nil, &EnvError{ID: "map.current", What: fmt.Sprintf("this user namespace maps too few ids for a rootfs (0 to %d are needed)", enoughIDs-1),
			Remedy: "leave out --mode root, or start the outer namespace with a map of at least 65535 ids"}
	}
	e.Plain, e.Handoff = own, own
	if o.Map != "" {
		plain, err := parseSpec(o.Map)
		if err != nil {
			return nil, err
		}
		e.Plain = plain
	}
	// Sub-ids matter to root only for words: no range is no error here.
	c, err := idshift.LookupCaller(e.sys.Sources)
	if err != nil {
		c = idshift.Caller{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	}
	e.Caller = c
	return e, nil
}

// asUnshare plans the maps of a new user namespace.
func (e *Env) asUnshare(o Options, own idshift.Mapping) (*Env, error) {
	e.Mode = ModeUnshare
	c, err := idshift.LookupCaller(e.sys.Sources)
	if err != nil {
		return nil, &EnvError{ID: "user.lookup", What: "user and sub-id lookup", Err: err,
			Remedy: "make /etc/passwd, /etc/subuid and /etc/subgid readable and well-formed"}
	}
	if e.Nested {
		c.UIDRanges, c.GIDRanges = idshift.Visible(c.UIDRanges, own.UID), idshift.Visible(c.GIDRanges, own.GID)
	}
	e.Caller = c
	if o.Map != "" {
		e.Plain, err = parseSpec(o.Map)
		if err != nil {
			return nil, err
		}
	} else {
		model := idshift.Model(o.Model)
		if model == "" {
			model = "base"
		}
		if e.Plain, err = idshift.Plan(model, c); err != nil {
			return nil, e.rangeError(err, own)
		}
	}
	if e.Handoff, err = idshift.Handoff(e.Plain, c); err != nil {
		return nil, e.rangeError(err, own)
	}
	return e, nil
}

func parseSpec(s string) (idshift.Mapping, error) {
	m, err := idshift.ParseSpec(s)
	if err != nil {
		return m, &UsageError{fmt.Sprintf("map %q: %v", s, err)}
	}
	return m, nil
}

// rangeError turns the planner's error into one about the environment; own is the map of this namespace. An unknown model is the
// user's mistake.
func (e *Env) rangeError(err error, own idshift.Mapping) error {
	var lacks, remedies []string
	for _, r := range rangeErrors(err) {
		lacks, remedies = append(lacks, r.Lack()), append(remedies, r.Remedy())
	}
	if len(lacks) == 0 {
		return &UsageError{err.Error()}
	}
	env := &EnvError{ID: "subid.range", What: strings.Join(lacks, " and ") + " for this user",
		Remedy: strings.Join(remedies, "; ") + "; it takes effect at once"}
	if e.Nested {
		env.ID = "subid.nested"
		env.Remedy = "inside a container only sub-ids that the container maps count: add such a range to /etc/subuid and /etc/subgid inside"
		u, g := freeAbove(own.UID, max(e.Caller.UID, 999)), freeAbove(own.GID, max(e.Caller.GID, 999))
		if u.Count >= enoughIDs && g.Count >= enoughIDs {
			name := callerName(e.Caller)
			env.Remedy += fmt.Sprintf(" (%s:%d:%d and %s:%d:%d)", name, u.First, u.Count, name, g.First, g.Count)
		}
		env.Remedy += ", or run as its root"
	}
	return env
}

// freeAbove is the largest range of ids above id that a namespace maps.
func freeAbove(m idshift.Map, id uint32) (best idshift.Range) {
	for _, x := range m.Extents() {
		first := max(uint64(x.Inside), uint64(id)+1)
		if end := uint64(x.Inside) + uint64(x.Count); end > first && end-first > uint64(best.Count) {
			best = idshift.Range{First: uint32(first), Count: uint32(end - first)}
		}
	}
	return best
}

// rangeErrors lists the planner's errors in err: one for each kind of ids that is short.
func rangeErrors(err error) (list []*idshift.RangeError) {
	if both, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range both.Unwrap() {
			list = append(list, rangeErrors(one)...)
		}
		return list
	}
	var r *idshift.RangeError
	if errors.As(err, &r) {
		list = append(list, r)
	}
	return list
}

// initial tells whether the map is that of the initial user namespace, every id to itself. "0 0 1" is not: it is what unshare -r
// gives in a namespace whose uid 0 calls it.
func initial(m idshift.Map) bool {
	ext := m.Extents()
	return m.IsIdentity() && len(ext) == 1 && ext[0].Inside == 0 && ext[0].Count == 1<<32-1
}

// enoughIDs is how many ids from 0 on root of a namespace needs to work in it, though it has no nobody: as mmdebstrap and sbuild, which map
// linearly, leave it in a container that keeps its user's id. What does need nobody then fails with an error about that id.
const enoughIDs = 10000

func enough(own idshift.Mapping) bool {
	for _, m := range []idshift.Map{own.UID, own.GID} {
		if first := m.Extents(); len(first) == 0 || first[0].Inside != 0 || first[0].Count < enoughIDs {
			return suffices(own)
		}
	}
	return true
}

// suffices tells whether root in a namespace with this map can hold any rootfs that a planned map could: every planned
// map makes 0 and 65534 usable.
func suffices(own idshift.Mapping) bool {
	for _, m := range []idshift.Map{own.UID, own.GID} {
		for _, id := range []uint32{0, 1, 65534} {
			if _, ok := m.ToOutside(id); !ok {
				return false
			}
		}
	}
	return true
}

// grace is e.Grace, or the default for an Env made by hand.
func (e *Env) grace() time.Duration {
	if e.Grace > 0 {
		return e.Grace
	}
	return defaultGrace
}
