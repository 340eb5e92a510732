package ferry

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/nsferry/nsferry/archive"
	"github.com/nsferry/nsferry/archive/sbuild"
)

// Target is a reader that an archive is made for; empty: any.
type Target string

// Sbuild is sbuild's unshare chroot: the archive has no device entries, no packages of apt's cache, and none of isar-apt, and it
// gets its name after package sbuild has found nothing: in the headers as they are written, and in the file's beginning.
const Sbuild Target = "sbuild"

// sbuildExcludes are what a chroot for builds does not need (isar, sbuildchroot_deploy).
var sbuildExcludes = []string{"var/cache/apt/archives/*", "isar-apt"}

// apply adds what the target asks for.
func (t Target) apply(p *archive.Policy, x *archive.Excludes) error {
	switch t {
	case "":
		return nil
	case Sbuild:
		if p.Devices == archive.Store {
			return fmt.Errorf("--devices store does not go with --target sbuild: it stumbles over device entries")
		}
		if p.Devices != archive.Fail {
			p.Devices = archive.NoDevices
		}
		*x = append(append(archive.Excludes{}, *x...), sbuildExcludes...)
		return nil
	}
	return fmt.Errorf("unknown target %q", t)
}

// header is what archive.CreateOptions.Header has to be.
func (t Target) header() func(blocks []byte) error {
	if t == Sbuild {
		return sbuild.CheckHeader
	}
	return nil
}

// written checks an archive whose headers were checked when they were written.
func (t Target) written(f *os.File, name string) error {
	if t == "" {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return sbuild.CheckOutside(f, st.Size(), name)
}

// Check demands that the archive in, which is or will be called name, is one for the target.
func (t Target) Check(ctx context.Context, in *os.File, name string, workers int) (sbuild.Tarball, error) {
	if t == "" {
		return sbuild.Tarball{}, nil
	}
	st, err := in.Stat()
	if err != nil {
		return sbuild.Tarball{}, err
	}
	if !st.Mode().IsRegular() {
		return sbuild.Tarball{}, fmt.Errorf("an archive for %s has to be a file, which can be checked", t)
	}
	return sbuild.Check(ctx, io.NewSectionReader(in, 0, st.Size()), st.Size(), name, Workers(workers))
}
