package ferry

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/zframe"
	"github.com/nsferry/nsferry/idshift/handoff"
)

// output is an archive that is to appear.
type output struct {
	Mode    uint32 // 0 is 0644 less the umask
	Replace bool
	Format  archive.Format
	Target  Target
}

// publish makes a file at out, which is the caller's by birth, has write fill it, and gives it its name when it is whole.
func publish(ctx context.Context, out string, o output, write func(*os.File) (archive.Summary, error)) (sum archive.Summary, err error) {
	parent, rest, name, err := OpenParent(out)
	if err != nil {
		return sum, err
	}
	defer parent.Close()
	if rest != "" {
		return sum, fmt.Errorf("%s: the directory is closed to you, and the output has to be yours", out)
	}
	overwrite := handoff.Exclusive
	if o.Replace {
		overwrite = handoff.Replace
	}
	if o.Mode == 0 {
		o.Mode = 0o666 &^ Umask()
	}
	p, err := handoff.NewPending(parent, name, handoff.Options{Mode: o.Mode, Overwrite: overwrite})
	if err != nil {
		return sum, fmt.Errorf("%s: %w", out, err)
	}
	defer func() { err = errors.Join(err, p.Abort()) }() // no effect once committed
	if sum, err = write(p.File()); err != nil {
		return sum, err
	}
	if err := whole(p.File(), sum, o.Format); err != nil {
		return sum, fmt.Errorf("%s: %w", out, err)
	}
	if err := o.Target.written(p.File(), name); err != nil {
		return sum, fmt.Errorf("%s: %w", out, err)
	}
	if err := ctx.Err(); err != nil { // what was asked to stop publishes nothing
		return sum, err
	}
	return sum, p.Commit()
}

// whole checks from outside that what the half says it wrote is there.
func whole(f *os.File, sum archive.Summary, format archive.Format) error {
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
