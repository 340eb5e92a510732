package ephemeral

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"

	"golang.org/x/sys/unix"
)

// GCOptions say which masters may stay. The zero value keeps all that a run could use.
type GCOptions struct {
	MaxAge   time.Duration // since the last use; 0 is any
	MaxBytes int64         // of all masters together, the least recently used go first; 0 is any
	Now      time.Time     // the zero value is now
	DryRun   bool
	Workers  int
}

// Master is one that GC has looked at.
type Master struct {
	Path    string    `json:"path"`
	Archive string    `json:"archive,omitempty"`
	Bytes   int64     `json:"bytes"` // on the disk
	Used    time.Time `json:"used"`
	Why     string    `json:"why,omitempty"` // it was removed; empty for one that stays
}

// GC removes masters that no run uses and o does not keep, and what killed runs have left. It returns all masters, the least recently
// used first. One in use is never removed.
func (s *State) GC(ctx context.Context, e *userns.Env, o GCOptions) ([]Master, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	all, err := s.list()
	if err != nil {
		return nil, err
	}
	var total int64
	for _, m := range all {
		total += m.Bytes
	}
	var errs []error
	for i := range all {
		m := &all[i]
		switch {
		case m.Why != "":
		case o.MaxAge > 0 && o.Now.Sub(m.Used) > o.MaxAge:
			m.Why = "not used since " + m.Used.Format(time.RFC3339)
		case o.MaxBytes > 0 && total > o.MaxBytes:
			m.Why = "the masters take too much room"
		default:
			continue
		}
		gone, err := collect(ctx, e, m.Path, o)
		if gone {
			total -= m.Bytes
		} else {
			m.Why = ""
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("gc %s: %w", m.Path, err))
		}
	}
	if !o.DryRun {
		_, err := sweepHalf.Run(ctx, e, keepArgs{As: e.CallerFSIDs()}, nil, s.runs)
		errs = append(errs, err, s.forget(o))
	}
	return all, errors.Join(errs...)
}

// list returns the masters, with the reason where no run can use one any more.
func (s *State) list() ([]Master, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	dirs, err := os.ReadDir(s.masters())
	if err != nil {
		return nil, err
	}
	var all []Master
	for _, d := range dirs {
		m := Master{Path: filepath.Join(s.masters(), d.Name())}
		r, err := readRecord(m.Path)
		if err != nil {
			return nil, err
		}
		m.Archive, m.Bytes = r.Archive, r.Survey.Bytes
		if st, err := os.Stat(filepath.Join(m.Path, lockName)); err == nil {
			m.Used = st.ModTime()
		}
		if r.Version != recordVersion || r.Boot != boot {
			m.Why = "not whole, or from before the machine was started"
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Master) int { return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.Path, b.Path)) })
	return all, nil
}

// collect removes the master in dir unless a run uses it. The record goes first: killed after that, it leaves what is not whole.
func collect(ctx context.Context, e *userns.Env, dir string, o GCOptions) (gone bool, err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDONLY|os.O_CREATE, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return false, err
	}
	if still, err := leadsTo(f.Name(), f); err != nil || !still {
		return false, err
	}
	if o.DryRun {
		return true, nil
	}
	if err := os.Remove(filepath.Join(dir, recordName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	_, err = ferry.Remove(ctx, e, dir, ferry.RemoveOptions{Force: true, Workers: o.Workers})
	return err == nil, err
}

// forget removes what is known of archives that were not looked at for long.
func (s *State) forget(o GCOptions) error {
	if o.MaxAge == 0 {
		return nil
	}
	notes, err := os.ReadDir(s.archives())
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range notes {
		if info, err := n.Info(); err == nil && o.Now.Sub(info.ModTime()) > o.MaxAge {
			errs = append(errs, os.Remove(filepath.Join(s.archives(), n.Name())))
		}
	}
	return errors.Join(errs...)
}
