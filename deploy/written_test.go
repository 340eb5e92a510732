package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/archive/tree"
	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
)

// abuse is what a command does with a descriptor that it was given to write to.
type abuse struct{ Rights, Link, Keep bool }

// abuseHalf gets the descriptor and a directory of its own.
var abuseHalf = userns.Half[abuse, struct{}]{Name: "test abuse", Func: func(ctx context.Context, in *userns.Inner, a abuse) (none struct{}, err error) {
	f := in.Files[0]
	if _, err := f.WriteString("data"); err != nil {
		return none, err
	}
	if a.Rights {
		err = errors.Join(rights(f), unix.Fchmod(int(f.Fd()), 0o6777))
	}
	if a.Link {
		err = unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), int(in.Files[1].Fd()), "mine", unix.AT_SYMLINK_FOLLOW)
	}
	if a.Keep {
		in.Progress("kept")
		<-ctx.Done()
	}
	return none, err
}}

// TestWrittenIsReclaimed hands out a descriptor to who does with it what he can: what appears is the caller's alone, or nothing.
func TestWrittenIsReclaimed(t *testing.T) {
	for _, e := range usernstest.Models(t) {
		for _, c := range []struct {
			name, want string
			abuse      abuse
		}{
			{"nothing", "", abuse{}},
			{"rights", "", abuse{Rights: true}},
			{"another name", "another name", abuse{Link: true}},
			{"left open", "another process has it open", abuse{Keep: true}},
		} {
			t.Run(e.Name+" "+c.name, func(t *testing.T) {
				g := newGround(t, e)
				w, err := NewWritten([]string{g.out("out")}, false)
				check(t, err)
				defer w.Abort()
				root, err := os.Open(g.root())
				check(t, err)
				defer root.Close()
				ctx, cancel := context.WithCancel(t.Context())
				kept, done := make(chan struct{}), make(chan error, 1)
				f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(w.Writers()[0].Fd())), os.O_RDWR, 0)
				check(t, err)
				go func() {
					_, err := abuseHalf.Run(ctx, e.Env, c.abuse, func(json.RawMessage) { close(kept) }, f, root)
					f.Close()
					done <- err
				}()
				if c.abuse.Keep {
					<-kept
				} else {
					check(t, <-done)
				}
				err = w.Commit()
				cancel()
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if c.abuse.Keep {
					<-done
				}
				if err != nil {
					if got := g.outputs(t); got != "" {
						t.Errorf("left: %s", got)
					}
					return
				}
				var st unix.Stat_t
				check(t, unix.Lstat(g.out("out"), &st))
				if int(st.Uid) != os.Getuid() || st.Mode&0o7777 != 0o644 || st.Nlink != 1 || read(t, g.out("out")) != "data" {
					t.Errorf("%+v", st)
				}
				for _, key := range []string{tree.XattrAccess, tree.XattrCapability} {
					if _, err := unix.Lgetxattr(g.out("out"), key, nil); !errors.Is(err, unix.ENODATA) {
						t.Errorf("%s: %v", key, err)
					}
				}
			})
		}
	}
}
