package deploy

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nsferry/nsferry/idshift/handoff"
)

// Written are outputs that a foreign command writes through open files.
type Written struct {
	all     []*handoff.Pending
	writers []*os.File
}

// NewWritten begins an output for each of the paths. The caller defers Abort.
func NewWritten(paths []string, replace bool) (w *Written, err error) {
	w = &Written{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Abort())
		}
	}()
	for _, path := range paths {
		set, err := newOutputs(path, Options{Replace: replace})
		if err != nil {
			return w, err
		}
		defer set.dir.Close()
		if set.name == "" {
			return w, fmt.Errorf("%s is a directory, and what is written to a descriptor has no name", path)
		}
		p, err := set.begin(set.name, time.Time{}, nil)
		if err != nil {
			return w, err
		}
		w.all = append(w.all, p)
		f, err := p.Reopen()
		if err != nil {
			return w, err
		}
		w.writers = append(w.writers, f)
	}
	return w, nil
}

// Writers are the open files to write to, one for each path, at offset 0. They stay Written's.
func (w *Written) Writers() []*os.File { return w.writers }

// Commit gives all outputs their names, after the command has ended well. Whoever still has one open then makes it fail.
func (w *Written) Commit() error {
	w.close()
	for _, p := range w.all {
		if err := p.Reclaim(); err != nil {
			return err
		}
	}
	return handoff.CommitAll(w.all, nil)
}

func (w *Written) close() {
	for _, f := range w.writers {
		f.Close() // written to by others; fsync has the news
	}
	w.writers = nil
}

// Abort drops what was not committed.
func (w *Written) Abort() error {
	w.close()
	var errs []error
	for _, p := range w.all {
		errs = append(errs, p.Abort())
	}
	return errors.Join(errs...)
}
