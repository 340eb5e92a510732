package sstate

import (
	"context"
	"errors"
	"fmt"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/sstate/minisign"
	"github.com/nsferry/nsferry/sstate/store"
)

// VerifyOptions say what Verify looks at.
type VerifyOptions struct {
	Workers    int
	Signed     []minisign.PublicKey // demand a signature of one of these keys; nil: none
	Tree       string               // compare the entry with this tree, too; empty: with none
	Exclude    archive.Excludes     // of the tree
	Quarantine bool                 // move damaged entries away
}

// Verified is what Verify found of one entry.
type Verified struct {
	Key     string               `json:"key"`
	Missing bool                 `json:"missing,omitempty"`
	Wrong   string               `json:"wrong,omitempty"` // what is wrong with it
	Moved   string               `json:"moved,omitempty"` // where it was moved to
	Differs []archive.Difference `json:"differs,omitempty"`
	*archive.Verified
}

// Status is the exit status that the finding asks for.
func (v Verified) Status() int {
	switch {
	case v.Missing:
		return store.ExitMiss
	case v.Wrong != "" || len(v.Differs) > 0:
		return userns.ExitFailed
	}
	return 0
}

// String is the finding as lines for people.
func (v Verified) String() string {
	text := v.Key + ": "
	switch {
	case v.Wrong != "":
		if text += v.Wrong; v.Moved != "" {
			text += "; moved to " + v.Moved
		}
	case !v.Own:
		text += fmt.Sprintf("a whole tar stream (%s) of another make, which has no sums to check", v.Kind)
	default:
		text += fmt.Sprintf("whole: %d entries, %d frames, all sums right", v.Entries, v.Frames)
	}
	for _, d := range v.Differs {
		text += "\n" + d.String()
	}
	return text
}

// Verify reads entries completely. Its error is of the work itself; what is wrong with entries is in the findings.
func Verify(ctx context.Context, env func() (*userns.Env, error), s *store.Store, keys []store.Key, o VerifyOptions) ([]Verified, error) {
	all := []Verified{}
	for _, key := range keys {
		v, err := verify(ctx, env, s, key, o)
		if err != nil {
			return all, fmt.Errorf("verify %s: %w", key, err)
		}
		all = append(all, v)
	}
	return all, nil
}

func verify(ctx context.Context, env func() (*userns.Env, error), s *store.Store, key store.Key, o VerifyOptions) (v Verified, err error) {
	v.Key = key.String()
	entry, err := s.Peek(ctx, key)
	if isMiss(err) && o.Quarantine {
		entry, err = s.Get(ctx, key) // which moves an odd entry away
	}
	var missed *store.MissError
	if errors.As(err, &missed) {
		v.Missing, v.Wrong, v.Moved = true, missed.Reason, missed.Moved
		return v, nil
	}
	if err != nil {
		return v, err
	}
	defer entry.Close()
	found, err := archive.Verify(ctx, entry.File, ferry.Workers(o.Workers))
	switch {
	case archive.Damaged(err):
		v.Wrong = err.Error()
		if o.Quarantine && errors.As(entry.Quarantine(v.Wrong), &missed) {
			v.Moved = missed.Moved
		}
		return v, nil
	case err != nil:
		return v, err
	}
	v.Verified = &found
	if o.Signed != nil {
		if _, err := checkSignature(entry, o.Signed); err != nil {
			v.Wrong = err.Error()
			return v, nil
		}
	}
	if o.Tree != "" {
		v.Differs, err = compare(ctx, env, entry, o)
	}
	return v, err
}

// compare lists the entry and the tree, and returns what differs.
func compare(ctx context.Context, env func() (*userns.Env, error), entry *store.Object, o VerifyOptions) (found []archive.Difference, err error) {
	var sides [2][]listing.Node
	collect := func(i int) func(listing.Node) error {
		return func(n listing.Node) error {
			sides[i] = append(sides[i], n)
			return nil
		}
	}
	if err := archive.List(ctx, entry.File, ferry.Workers(o.Workers), collect(0)); err != nil {
		return nil, err
	}
	if err := ferry.List(ctx, env, o.Tree, ferry.ListOptions{Workers: o.Workers, Exclude: o.Exclude}, collect(1)); err != nil {
		return nil, err
	}
	err = archive.Compare(sides[0], sides[1], func(d archive.Difference) error {
		found = append(found, d)
		return nil
	})
	return found, err
}
