package deploy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsferry/nsferry/idshift/userns"
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"github.com/nsferry/nsferry/tier"
)

const (
	genuine = "the file that was built "
	other   = "another file, as long  "
	secret  = "a secret of the caller's"
	repeats = 4000 // of one of these
)

// swap is what an attacker inside does.
type swap struct {
	Chmod  string // makes a directory 0700 and is done
	Hold   string // keeps this file open for writing
	Lock   string // keeps this file locked (flock(2)), open for reading
	Target string // of symlinks: the caller's private directory, with a file "prize" in it
}

// swapHalf is an attacker inside. Until it is told to stop it puts other things in the place of dir/prize, and of dir.
var swapHalf = userns.Half[swap, int]{Name: "test swap", Func: func(ctx context.Context, in *userns.Inner, s swap) (n int, err error) {
	at := int(in.Files[0].Fd())
	if s.Chmod != "" {
		return 0, unix.Fchmodat(at, s.Chmod, 0o700, 0)
	}
	if s.Hold+s.Lock != "" {
		return hold(ctx, in, s)
	}
	kinds := []func() error{
		func() error { return unix.Symlinkat(s.Target+"/prize", at, "new") },
		func() error { return put(at, genuine, 0) },
		func() error { return unix.Symlinkat("../../private/prize", at, "new") },
		func() error { return unix.Mkfifoat(at, "new", 0o666) },
		func() error { return put(at, other, 0) },
		func() error { return unix.Mknodat(at, "new", unix.S_IFCHR|0o666, 0) },
		func() error { return put(at, genuine, 1<<42) },
		func() error { return put(at, genuine, 0) },
		func() error { return unix.Mknodat(at, "new", unix.S_IFSOCK|0o666, 0) },
		func() error { return rewrite(at) },
	}
	for ; ctx.Err() == nil; n++ {
		if err := kinds[n%len(kinds)](); err == nil {
			_ = unix.Renameat(at, "new", at, "dir/prize")
		}
		if n%3 == 0 {
			_ = unix.Renameat(at, "dir", at, "dir.real")
			_ = unix.Symlinkat(s.Target, at, "dir")
			time.Sleep(50 * time.Microsecond)
			_ = unix.Unlinkat(at, "dir", 0)
			_ = unix.Renameat(at, "dir.real", at, "dir")
		}
	}
	_ = unix.Unlinkat(at, "new", 0)
	return n, nil
}}

// hold keeps a file open until it is told to stop, and says when it has it.
func hold(ctx context.Context, in *userns.Inner, s swap) (int, error) {
	flags := unix.O_WRONLY
	if s.Lock != "" {
		flags = unix.O_RDONLY
	}
	fd, err := unix.Openat(int(in.Files[0].Fd()), s.Hold+s.Lock, flags, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if s.Lock != "" {
		if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
			return 0, err
		}
	}
	in.Progress("held")
	<-ctx.Done()
	return 0, ctx.Err()
}

// put makes the file "new".
func put(at int, content string, size int64) error {
	fd, err := unix.Openat(at, "new", unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(strings.Repeat(content, repeats))); err != nil || size == 0 {
		return err
	}
	return unix.Ftruncate(fd, size)
}

// rewrite changes the file that is there, a part at a time.
func rewrite(at int) error {
	fd, err := unix.Openat(at, "dir/prize", unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i := range 8 {
		if _, err := unix.Pwrite(fd, []byte(strings.Repeat(other, repeats/8)), int64(i*len(other)*repeats/8)); err != nil {
			return err
		}
	}
	return unix.ENOENT // there is no "new"
}

// TestAttack deploys while an attacker inside swaps the source for links to a private file of the caller's, fifos, devices, huge
// files and other inodes, and rewrites it: nothing of the caller's comes out, nothing hangs, and what is
// expected to be the genuine file is.
func TestAttack(t *testing.T) {
	rounds := tier.Soaking(10000, 120)
	for _, e := range usernstest.Models(t) {
		if out, _ := e.Plain.UID.ToOutside(0); e.Direct || out == e.Caller.UID {
			continue // inner root is the caller, and needs no tricks
		}
		t.Run(e.Name, func(t *testing.T) { attack(t, e, rounds) })
	}
}

func attack(t *testing.T, e usernstest.Way, rounds int) {
	g := newGround(t, e, plant{Path: "dir", Kind: unix.S_IFDIR})
	private := filepath.Join(g.dir, "private")
	check(t, errors.Join(os.Mkdir(private, 0o700), os.WriteFile(filepath.Join(private, "prize"), []byte(strings.Repeat(secret, repeats)), 0o600)))
	root, err := os.Open(g.root())
	check(t, err)
	defer root.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		n, _ := swapHalf.Run(ctx, e.Env, swap{Target: private}, nil, root) // cancelled
		done <- n
	}()
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Repeat(genuine, repeats))))
	outcomes := map[string]int{}
	for i := range rounds {
		o, source := Options{From: g.root(), Replace: true}, "dir/prize"
		if i%4 >= 2 {
			o.From, source = "", filepath.Join(g.root(), source)
		}
		expect := i%2 == 1
		if expect {
			o.Expect.SHA256 = sum
			size := int64(len(genuine) * repeats)
			o.Expect.Size = &size
		}
		begin := time.Now()
		_, err := Files(t.Context(), e.Env, []string{source}, g.out("got"), o)
		if took := time.Since(begin); took > 20*time.Second {
			t.Fatalf("round %d took %v: %v", i, took, err)
		}
		outcomes[outcome(t, g.out("got"), err, expect)]++
		if t.Failed() {
			t.Fatalf("in round %d", i)
		}
	}
	cancel()
	t.Logf("%d rounds, %d swaps: %v", rounds, <-done, outcomes)
	if outcomes["deployed"] == 0 || len(outcomes) < 3 {
		t.Error("the attack shows nothing")
	}
	check(t, unix.Access(filepath.Join(private, "prize"), unix.R_OK))
}

// outcome names what came of a round, and demands that it may.
func outcome(t *testing.T, path string, err error, expect bool) string {
	t.Helper()
	if err != nil {
		if _, serr := os.Lstat(path); serr == nil {
			t.Errorf("there is an output after %v", err)
		}
		var mismatch *MismatchError
		var errno unix.Errno
		switch {
		case errors.As(err, &mismatch):
			return mismatch.What
		case errors.As(err, &errno):
			return errno.Error()
		}
		return err.Error()[max(strings.LastIndex(err.Error(), "prize"), strings.LastIndex(err.Error(), "dir: "))+5:]
	}
	defer os.Remove(path)
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	head := make([]byte, len(genuine)*repeats)
	n, _ := f.Read(head)
	text := string(head[:n])
	if strings.Contains(text, "secret") {
		t.Error("the caller's secret came out")
	}
	if expect && text != strings.Repeat(genuine, repeats) {
		t.Errorf("another file than expected came out: %.40q", text)
	}
	return "deployed"
}
