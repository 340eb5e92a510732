package ferry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/listing"
	"github.com/nsferry/nsferry/idshift/userns"
)

// ListOptions say what of a tree is listed, and how fast.
type ListOptions struct {
	Workers     int
	Policy      archive.Policy
	Exclude     archive.Excludes
	CrossMounts bool
}

type listArgs struct {
	Rest    string
	IDs     archive.IDs
	Options ListOptions
}

// List calls fn for every inode of the tree, or every entry of the archive, at path. Nodes hold inside ids. "-" is
// standard input.
func List(ctx context.Context, env func() (*userns.Env, error), path string, o ListOptions, fn func(listing.Node) error) error {
	st, err := os.Stat(path)
	if path == "-" || err == nil && !st.IsDir() {
		in, err := Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		if err := archive.List(ctx, in, Workers(o.Workers), fn); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	e, err := env()
	if err != nil {
		return err
	}
	return listTree(ctx, e, path, o, fn)
}

// Open opens an archive of the caller's for reading; "-" is standard input.
func Open(path string) (*os.File, error) {
	if path == "-" {
		return os.Stdin, nil
	}
	return os.Open(path)
}

// listTree lets the half write lines into a pipe and reads them.
func listTree(ctx context.Context, e *userns.Env, dir string, o ListOptions, fn func(listing.Node) error) error {
	root, rest, err := userns.OpenTree(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Policy = o.Policy.WithDefaults(Privileged(e))
	o.Policy.Unmapped = archive.Fail
	done := make(chan error, 1)
	go func() {
		_, err := listHalf.Run(ctx, e, listArgs{rest, ids(e), o}, nil, root, w)
		done <- errors.Join(err, w.Close())
	}()
	rerr := readLines(r, fn)
	if rerr != nil {
		cancel()
		r.Close()
	}
	if err := <-done; err != nil && rerr == nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	return rerr
}

func readLines(r io.Reader, fn func(listing.Node) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		n, err := listing.ParseLine(s.Text())
		if err == nil {
			err = fn(n)
		}
		if err != nil {
			return err
		}
	}
	return s.Err()
}

// listHalf gets the tree's root and the pipe.
var listHalf = userns.Half[listArgs, struct{}]{Name: "list", Func: func(ctx context.Context, in *userns.Inner, a listArgs) (none struct{}, err error) {
	root, err := userns.ReopenDir(in.Files[0], a.Rest)
	if err != nil {
		return none, err
	}
	defer root.Close()
	o := a.Options
	line, flush := archive.WriteLines(in.Files[1])
	err = archive.ListTree(ctx, root, archive.ScanOptions{IDs: a.IDs, Policy: o.Policy, Exclude: o.Exclude, CrossMounts: o.CrossMounts}, Workers(o.Workers), line)
	return none, errors.Join(err, flush())
}}
