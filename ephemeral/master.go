package ephemeral

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/handoff"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

// master is the tree of an archive, in use.
type master struct {
	tree   *os.File // O_PATH
	lock   *os.File // locked shared as long as anybody has it open; a file, which leads nowhere
	record record
}

// record says that a master is whole. It lies beside the tree, and is written last.
type record struct {
	Version int
	// Boot is that of the kernel under which the tree was written. Nothing of it was synced, for it can be made again: after a
	// power cut there may be anything in it.
	Boot    string
	Archive string // where it came from, for people
	Key     string // what its name is the digest of
	Made    time.Time
	Survey  survey
}

const recordVersion = 1

// What is in a master's directory.
const lockName, recordName, treeName = "lock", "whole", "tree"

// Close ends the use.
func (m *master) Close() error {
	if m == nil {
		return nil
	}
	return errors.Join(m.tree.Close(), m.lock.Close())
}

// master returns the tree of an archive, unpacking it if this is the first run over it.
func (s *State) master(ctx context.Context, e *userns.Env, o Options) (*master, error) {
	id, err := s.identity(ctx, o.Archive)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	want := record{Version: recordVersion, Boot: boot, Archive: o.Archive.Name(), Key: masterKey(e, o, id)}
	sum := sha256.Sum256([]byte(want.Key))
	name := hex.EncodeToString(sum[:16])
	for {
		lock, err := s.enter(ctx, name)
		if err != nil {
			return nil, err
		}
		m, err := s.take(ctx, e, o, want, lock)
		if err == nil && m != nil {
			return m, nil
		}
		lock.Close()
		if err != nil {
			return nil, fmt.Errorf("master of %s: %w", o.Archive.Name(), err)
		}
	}
}

// bootID is another one after each start of the machine.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// masterKey is all that decides about the bytes of a master: the archive, the ids that inside ids become on the disk, and what was
// left out.
func masterKey(e *userns.Env, o Options, id string) string {
	own, _ := os.ReadFile("/proc/self/uid_map") // it cannot be read where there are no namespaces
	plain := fmt.Sprintf("%s/%s", e.Plain.UID, e.Plain.GID)
	if e.Direct && !e.Arithmetic() {
		plain = "as inside"
	}
	return strings.Join([]string{id, plain, strings.Join(strings.Fields(string(own)), " "), fmt.Sprintf("%+v", o.Policy.WithDefaults(ferry.Privileged(e)))}, "\n")
}

// enter makes the directory of a master, if need be, and returns its lock, which is held shared.
func (s *State) enter(ctx context.Context, name string) (*os.File, error) {
	dir := filepath.Join(s.masters(), name)
	for {
		f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDONLY|os.O_CREATE, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			if err = os.Mkdir(dir, 0o700); err == nil || errors.Is(err, os.ErrExist) {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		err = lock(ctx, f, unix.LOCK_SH)
		still := false
		if err == nil {
			still, err = leadsTo(f.Name(), f)
		}
		if still {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// leadsTo tells whether path is f: a lock may have been collected before it was had.
func leadsTo(path string, f *os.File) (bool, error) {
	named, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	ours, openErr := f.Stat()
	if err := errors.Join(err, openErr); err != nil {
		return false, err
	}
	return os.SameFile(named, ours), nil
}

// lock waits for a lock of flock(2), as long as ctx lets it.
func lock(ctx context.Context, f *os.File, how int) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// take returns the master that lk locks if it is whole, or else makes it and returns nil: flock(2) gives up a lock before it
// changes it, so what was made has to be looked at again.
func (s *State) take(ctx context.Context, e *userns.Env, o Options, want record, lk *os.File) (*master, error) {
	dir := filepath.Dir(lk.Name())
	r, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	if r.is(want) {
		tree, rest, err := userns.OpenTree(filepath.Join(dir, treeName))
		if err == nil && rest != "" {
			err = fmt.Errorf("%s: it is closed to you", dir)
		}
		if err != nil {
			return nil, err
		}
		now := time.Now()
		if err := os.Chtimes(lk.Name(), now, now); err != nil { // of last use
			return nil, errors.Join(err, tree.Close())
		}
		return &master{tree: tree, lock: lk, record: r}, nil
	}
	if err := lock(ctx, lk, unix.LOCK_EX); err != nil {
		return nil, err
	}
	if still, err := leadsTo(lk.Name(), lk); err != nil || !still {
		return nil, err
	}
	if r, err = readRecord(dir); err != nil || r.is(want) { // somebody was faster
		return nil, err
	}
	return nil, s.make(ctx, e, o, want, lk)
}

// make unpacks the archive into the directory of the master that lk locks exclusively.
func (s *State) make(ctx context.Context, e *userns.Env, o Options, r record, lk *os.File) error {
	dir := filepath.Dir(lk.Name())
	if err := os.Remove(filepath.Join(dir, recordName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	path := filepath.Join(dir, treeName)
	if _, err := ferry.Remove(ctx, e, path, ferry.RemoveOptions{Force: true, Workers: o.Workers}); err != nil {
		return err
	}
	if _, err := o.Archive.Seek(0, 0); err != nil {
		return err
	}
	sums, err := frameSums(o.Archive)
	if err != nil {
		return err
	}
	sum, err := ferry.Unpack(ctx, e, o.Archive, path, ferry.UnpackOptions{
		Workers: o.Workers, Policy: o.Policy, Progress: o.Progress, Sums: sums, Hold: []*os.File{lk}})
	if err != nil {
		return err
	}
	for _, text := range sum.Warnings() {
		o.note(text)
	}
	tree, _, err := userns.OpenTree(path)
	if err != nil {
		return err
	}
	defer tree.Close()
	if r.Survey, err = surveyHalf.Run(ctx, e, surveyArgs{o.Workers}, nil, tree); err != nil {
		return err
	}
	r.Made = time.Now().UTC()
	return writeJSON(filepath.Join(dir, recordName), r)
}

// is tells whether r is the record of a whole master that is wanted.
func (r record) is(want record) bool {
	return r.Version == want.Version && r.Boot == want.Boot && r.Key == want.Key
}

// readRecord returns the zero record for a master that is not whole.
func readRecord(dir string) (r record, err error) {
	text, err := os.ReadFile(filepath.Join(dir, recordName))
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err == nil && json.Unmarshal(text, &r) != nil {
		return record{}, nil // power was cut
	}
	return r, err
}

// writeJSON writes a small file of the caller's, whole or not at all.
func writeJSON(path string, v any) (err error) {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	p, err := handoff.NewPending(dir, filepath.Base(path), handoff.Options{Mode: 0o600, Overwrite: handoff.Replace})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Abort()) }()
	if _, err := p.File().Write(text); err != nil {
		return err
	}
	return p.Commit()
}
