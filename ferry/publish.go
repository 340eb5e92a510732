package ferry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/idshift/handoff"
)

// appearance is how an archive is to appear.
type appearance struct {
	Mode    uint32 // 0 is 0644 less the umask
	Replace bool
	Format  archive.Format
	Target  Target
}

// pending is an archive that has no name before it is whole. It is the caller's by birth. Abort it.
type pending struct {
	*handoff.Pending
	path string
	as   appearance
}

// newPending makes ready for an archive at out, so that what forbids it shows before there is any work.
func newPending(out string, as appearance) (*pending, error) {
	parent, rest, name, err := OpenParent(out)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if rest != "" {
		return nil, fmt.Errorf("%s: the directory is closed to you, and the output has to be yours", out)
	}
	overwrite := handoff.Exclusive
	if as.Replace {
		overwrite = handoff.Replace
	}
	if as.Mode == 0 {
		as.Mode = 0o666 &^ Umask()
	}
	p, err := handoff.NewPending(parent, name, handoff.Options{Mode: as.Mode, Overwrite: overwrite})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", out, err)
	}
	return &pending{p, out, as}, nil
}

// publish checks what was written, and gives it its name.
func (p *pending) publish(ctx context.Context, sum archive.Summary) error {
	if err := Whole(p.File(), sum, p.as.Format); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	if err := p.as.Target.written(p.File(), filepath.Base(p.path)); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	if err := ctx.Err(); err != nil { // what was asked to stop publishes nothing
		return err
	}
	if err := p.Commit(); err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	return nil
}

// publish makes a file at out, has write fill it, and gives it its name when it is whole.
func publish(ctx context.Context, out string, as appearance, write func(*os.File) (archive.Summary, error)) (sum archive.Summary, err error) {
	p, err := newPending(out, as)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, p.Abort()) }() // no effect once committed
	if sum, err = write(p.File()); err != nil {
		return sum, err
	}
	return sum, p.publish(ctx, sum)
}

// Whole checks from outside that what the half says it wrote is there.
func Whole(f *os.File, sum archive.Summary, format archive.Format) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != sum.Stored {
		return fmt.Errorf("%d bytes were written, but %d are there", sum.Stored, st.Size())
	}
	if format != archive.Framed {
		return nil
	}
	z, err := zframe.Open(f, st.Size())
	if err == nil && z.Raw() != sum.Raw {
		err = fmt.Errorf("%d bytes of tar were written, but %d are there", sum.Raw, z.Raw())
	}
	return err
}
