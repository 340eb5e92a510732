package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/handoff"
)

// outputs are the files that appear together in one directory.
type outputs struct {
	o      Options
	dir    *os.File
	path   string // of dir
	name   string // of the only output; "": outputs are called as their sources are
	list   []*output
	taken  map[string]bool
	extras []*handoff.Pending // sums and maps, which appear after what they are of
	extra  []string           // their names
}

// output is one file, with what is told of it beside it.
type output struct {
	name, plain string // plain is without the suffix of the compression
	main        *handoff.Pending
	sum, blocks *handoff.Pending // nil: not wanted
	done        Delivered
}

// newOutputs opens the directory that dest is or is in.
func newOutputs(dest string, o Options) (*outputs, error) {
	s := &outputs{o: o, taken: map[string]bool{}}
	if s.o.Mode == 0 {
		s.o.Mode = 0o644 &^ ferry.Umask()
	}
	rest := ""
	st, err := os.Stat(dest)
	switch {
	case err == nil && st.IsDir(), strings.HasSuffix(dest, "/"):
		s.path = filepath.Clean(dest)
		s.dir, err = os.OpenFile(dest, unix.O_PATH|unix.O_DIRECTORY, 0)
	case o.All:
		err = &os.PathError{Op: "open", Path: dest, Err: unix.ENOTDIR}
	default:
		s.path = filepath.Dir(filepath.Clean(dest))
		s.dir, rest, s.name, err = ferry.OpenParent(dest)
	}
	if err == nil && rest != "" {
		err = errors.Join(fmt.Errorf("%s: the directory is closed to you, and the output has to be yours", dest), s.dir.Close())
	}
	if err != nil {
		return nil, err
	}
	s.taken[o.Symlink] = true
	return s, nil
}

// take notes a name, which may be used once.
func (s *outputs) take(name string) error {
	if s.taken[name] {
		return fmt.Errorf("two outputs would be called %s", filepath.Join(s.path, name))
	}
	s.taken[name] = true
	return nil
}

// add begins the output for a source.
func (s *outputs) add(f *source, mtime time.Time) (err error) {
	out := &output{name: f.name + s.o.Compress.suffix(), plain: f.name}
	if s.name != "" {
		if len(s.list) > 0 {
			return fmt.Errorf("%s is not a directory, and there is more than one output", filepath.Join(s.path, s.name))
		}
		out.name, out.plain = s.name, strings.TrimSuffix(s.name, s.o.Compress.suffix())
	}
	out.done = Delivered{Source: f.path, Output: filepath.Join(s.path, out.name)}
	var adopted *os.File
	if s.o.Give {
		if err := s.sameFilesystem(f); err != nil {
			return err
		}
		adopted = f.file
	}
	if out.main, err = s.begin(out.name, mtime, adopted); err != nil {
		return err
	}
	s.list = append(s.list, out)
	if s.o.Sum {
		if out.sum, err = s.beside(out.name + ".sha256"); err != nil {
			return err
		}
	}
	if s.o.Map {
		out.blocks, err = s.beside(out.plain + ".bmap")
	}
	return err
}

// begin begins a new file, or a new name of adopted.
func (s *outputs) begin(name string, mtime time.Time, adopted *os.File) (p *handoff.Pending, err error) {
	if err := s.take(name); err != nil {
		return nil, err
	}
	opts := handoff.Options{Mode: s.o.Mode, ModTime: mtime}
	if s.o.Replace {
		opts.Overwrite = handoff.Replace
	}
	if adopted != nil {
		p, err = handoff.Adopt(s.dir, name, adopted, opts)
	} else {
		p, err = handoff.NewPending(s.dir, name, opts)
	}
	if errors.Is(err, handoff.ErrExists) {
		return nil, fmt.Errorf("%s: %w; --force replaces it", filepath.Join(s.path, name), handoff.ErrExists)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return p, nil
}

// sameFilesystem demands that a file can have a name in the directory.
func (s *outputs) sameFilesystem(f *source) error {
	var file, dir unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.file.Fd()), &file), unix.Fstat(int(s.dir.Fd()), &dir)); err != nil {
		return err
	}
	if file.Dev != dir.Dev {
		return fmt.Errorf("%s and %s are not on one filesystem: %w; without --give it is copied", f.path, s.path, unix.EXDEV)
	}
	return nil
}

// beside begins a file that tells of an output.
func (s *outputs) beside(name string) (*handoff.Pending, error) {
	p, err := s.begin(name, time.Time{}, nil)
	if err == nil {
		s.extras, s.extra = append(s.extras, p), append(s.extra, filepath.Join(s.path, name))
	}
	return p, err
}

// fill has write make the content of output i, and writes what is told of it.
func (s *outputs) fill(ctx context.Context, i int, write func(*os.File, *watcher) (Delivered, error)) error {
	out, w := s.list[i], newWatcher(s.o)
	d, err := write(out.main.File(), w)
	if err != nil {
		return fmt.Errorf("%s to %s: %w", out.done.Source, out.done.Output, err)
	}
	d.Source, d.Output = out.done.Source, out.done.Output
	out.done = d
	if out.sum != nil {
		if _, err := out.sum.File().WriteString(sumLine(d.SHA256, out.name)); err != nil {
			return err
		}
	}
	if out.blocks != nil {
		if _, err := out.blocks.File().Write(w.blocks.text()); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// sumLine is what sha256sum(1) prints for a file, and reads with --check.
func sumLine(sum, name string) string {
	escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name)
	if escaped != name {
		sum = `\` + sum
	}
	return sum + "  " + escaped + "\n"
}

// commit gives all their names: outputs, then sums and maps, then the link.
func (s *outputs) commit(ctx context.Context) (sum Summary, err error) {
	if err := ctx.Err(); err != nil { // what was asked to stop publishes nothing
		return sum, err
	}
	var all []*handoff.Pending
	for _, out := range s.list {
		all = append(all, out.main)
		sum.Outputs = append(sum.Outputs, out.done)
	}
	var link *handoff.Symlink
	if s.o.Symlink != "" {
		link = &handoff.Symlink{Dir: s.dir, Name: s.o.Symlink, Target: s.list[0].name}
		sum.Symlink = filepath.Join(s.path, s.o.Symlink)
	}
	if err := handoff.CommitAll(append(all, s.extras...), link); err != nil {
		return Summary{}, fmt.Errorf("%s: %w", s.path, err)
	}
	sum.Extra = s.extra
	return sum, nil
}

// abort drops what was not committed.
func (s *outputs) abort() error {
	var errs []error
	for _, out := range s.list {
		errs = append(errs, out.main.Abort())
	}
	for _, p := range s.extras {
		errs = append(errs, p.Abort())
	}
	return errors.Join(append(errs, s.dir.Close())...)
}
