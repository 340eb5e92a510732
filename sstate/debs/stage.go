package debs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nsferry/nsferry/ferry"
	"github.com/nsferry/nsferry/idshift/userns"
)

// StageOptions are those of the Import that Stage is. Its Mode is always Mode0755.
type StageOptions struct {
	Link    Link
	Needed  *Needed
	Workers int
	Note    func(string) // told what is waited for; may be nil
}

// Stage prepares a new directory at dir for a tool that enters a namespace of its own, as mmdebstrap does, and sees the caller
// as nobody there: a rootfs that has nothing but apt's archives, with the debs of the cache at dl. Inner root may write to them, and
// hooks of the tool bring debs in from there and put new ones there. Inner root has to get there by path, so that every directory above
// must let him through; what does not is an *userns.EnvError with the remedy.
func Stage(ctx context.Context, env EnvFunc, dl, dir string, o StageOptions) (sum Imported, err error) {
	e, err := env()
	if err != nil {
		return sum, fmt.Errorf("stage: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return sum, fmt.Errorf("stage: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !isEmptyDir(dir) {
		return sum, fmt.Errorf("stage: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return sum, fmt.Errorf("stage: %w", err)
	}
	if f := ferry.Traversal(e, dir); f.State != userns.StateOK {
		return sum, fmt.Errorf("stage: %w", errors.Join(&userns.EnvError{ID: f.ID, What: f.Evidence, Remedy: f.Remedy}, os.Remove(dir)))
	}
	known := func() (*userns.Env, error) { return e, nil }
	return Import(ctx, known, dl, dir, ImportOptions{Link: o.Link, Mode: Mode0755, Needed: o.Needed, Workers: o.Workers, Note: o.Note})
}

func isEmptyDir(dir string) bool {
	names, err := os.ReadDir(dir)
	return err == nil && len(names) == 0
}

// Unstage takes the new debs in a directory that Stage made into the cache at dl, checked against the lists that the hooks put there, and
// removes it. After an error, a refused deb included, the directory stays as it is.
func Unstage(ctx context.Context, env EnvFunc, dir, dl string, o ExportOptions) (sum Exported, err error) {
	o.KeepMode = true
	if sum, err = Export(ctx, env, dir, dl, o); err != nil || o.DryRun {
		return sum, err
	}
	e, err := env()
	if err != nil {
		return sum, fmt.Errorf("unstage: %w", err)
	}
	if _, err := ferry.Remove(ctx, e, dir, ferry.RemoveOptions{}); err != nil {
		return sum, fmt.Errorf("unstage: %w", err)
	}
	return sum, nil
}
