//go:build linux

package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsferry/nsferry/tier"

	"golang.org/x/sys/unix"
)

// jobVar makes the test binary a process that does one thing with a store: JSON of a job.
const jobVar = "STORE_TEST_JOB"

type job struct{ Dir, Do, Key, Word string }

// outcome is what came of a job.
type outcome struct {
	Err       string // as text
	Miss      bool
	Linked    bool
	Collected Collected
}

// serveJob is such a process. In any other one it does nothing.
func serveJob() {
	text := os.Getenv(jobVar)
	if text == "" {
		return
	}
	var j job
	var out outcome
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		unix.Umask(0o022)
		out, err = j.run(context.Background())
	}
	if err != nil {
		out.Err, out.Miss = err.Error(), errors.Is(err, ErrMiss)
	}
	_ = json.NewEncoder(os.Stdout).Encode(out)
	os.Exit(0)
}

func (j job) run(ctx context.Context) (out outcome, err error) {
	s, err := Open(j.Dir, Options{})
	if err != nil {
		return out, err
	}
	k, err := ParseKey(j.Key)
	if err != nil {
		return out, err
	}
	switch j.Do {
	case "put":
		return out, tryPut(ctx, s, k, j.Word)
	case "gc":
		out.Collected, err = s.GC(GCOptions{MaxAge: time.Nanosecond})
		return out, err
	case "get":
		o, err := s.Get(ctx, k)
		if err != nil {
			return out, err
		}
		got := make([]byte, o.Size)
		_, err = o.File.ReadAt(got, 0)
		if err == nil && !bytes.Equal(got, content(j.Word)) {
			err = errors.New("it is another entry")
		}
		return out, errors.Join(err, o.Close())
	case "repeat":
		from, err := ParseKey(j.Word)
		if err != nil {
			return out, err
		}
		o, err := s.Get(ctx, from)
		if err != nil {
			return out, err
		}
		defer o.Close()
		p, err := s.Put(ctx, k)
		if err != nil {
			return out, err
		}
		p.Repeat(o.File)
		err = p.Commit()
		out.Linked = p.Linked()
		return out, errors.Join(err, p.Abort())
	}
	return out, errors.New("no such job: " + j.Do)
}

// group is what both users of the tests are in.
const group = 70003

// as runs the job as another user, whose group has the same number.
func (j job) as(t *testing.T, uid uint32) (out outcome) {
	t.Helper()
	text, err := json.Marshal(j)
	check(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Dir = []string{jobVar + "=" + string(text)}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{group}}}
	printed, err := cmd.Output()
	check(t, err)
	check(t, json.Unmarshal(printed, &out))
	return out
}

// TestOtherOwner uses a store that belongs to another user, as one who may only read it, and as one who shares it.
func TestOtherOwner(t *testing.T) {
	tier.Root(t, "to be several users")
	const owner, other = 70001, 70002
	store := func(t *testing.T, mode uint32) string {
		t.Helper()
		open, err := os.MkdirTemp("", "nsferry-store-")
		check(t, err)
		t.Cleanup(func() { check(t, os.RemoveAll(open)) })
		check(t, os.Chmod(open, 0o755))
		dir := filepath.Join(open, "store")
		check(t, os.Mkdir(dir, 0o755))
		check(t, os.Chown(dir, owner, group))
		check(t, unix.Chmod(dir, mode))
		for _, name := range []string{"k", "odd"} {
			if got := (job{dir, "put", name, "theirs"}).as(t, owner); got.Err != "" {
				t.Fatal(got.Err)
			}
		}
		s := &Store{dir: dir}
		check(t, os.Truncate(s.path(key(t, "odd").Path()), 0))
		then := time.Now().Add(-48 * time.Hour)
		check(t, os.Chtimes(s.path(key(t, "k").Path()), then, then))
		return dir
	}
	stat := func(t *testing.T, dir, name string) (st unix.Stat_t) {
		t.Helper()
		check(t, unix.Stat(filepath.Join(dir, key(t, name).Path()), &st))
		return st
	}
	t.Run("to read", func(t *testing.T) {
		dir := store(t, 0o755)
		before := stat(t, dir, "k")
		if got := (job{dir, "get", "k", "theirs"}).as(t, other); got.Err != "" {
			t.Error(got.Err)
		}
		if now := stat(t, dir, "k"); now.Ctim != before.Ctim || now.Mtim != before.Mtim {
			t.Error("the entry is not as it was")
		}
		if got := (job{dir, "get", "odd", ""}).as(t, other); !got.Miss || strings.Contains(got.Err, "moved to") {
			t.Errorf("an odd entry: %+v", got)
		}
		stat(t, dir, "odd")
		for _, do := range []string{"put", "repeat"} {
			if got := (job{dir, do, "new", "k"}).as(t, other); !strings.Contains(got.Err, "permission denied") || !strings.Contains(got.Err, dir) {
				t.Errorf("%s: %+v", do, got)
			}
		}
		if got := (job{dir, "gc", "x", ""}).as(t, other); len(got.Collected.Evicted) != 0 || !strings.Contains(got.Err, "permission denied") {
			t.Errorf("gc: %+v", got)
		}
		stat(t, dir, "k")
	})
	t.Run("shared", func(t *testing.T) {
		dir := store(t, 0o2775)
		if got := (job{dir, "get", "k", "theirs"}).as(t, other); got.Err != "" {
			t.Error(got.Err)
		}
		if got := (job{dir, "put", "mine", "mine"}).as(t, other); got.Err != "" {
			t.Error(got.Err)
		}
		if st := stat(t, dir, "mine"); st.Uid != other || st.Gid != group || st.Mode&0o7777 != 0o664 {
			t.Errorf("what another one puts there: %d:%d %#o", st.Uid, st.Gid, st.Mode)
		}
		if got := (job{dir, "get", "mine", "mine"}).as(t, owner); got.Err != "" {
			t.Error(got.Err)
		}
		if got := (job{dir, "repeat", "again", "k"}).as(t, other); got.Err != "" || got.Linked {
			t.Errorf("repeat: %+v", got)
		}
		if st := stat(t, dir, "again"); st.Uid != other || st.Nlink != 1 {
			t.Errorf("a file of uid %d with %d names", st.Uid, st.Nlink)
		}
		if got := (job{dir, "repeat", "mine too", "mine"}).as(t, other); got.Err != "" || !got.Linked {
			t.Errorf("repeat of one's own: %+v", got)
		}
		if got := (job{dir, "get", "odd", ""}).as(t, other); !got.Miss || !strings.Contains(got.Err, "moved to") {
			t.Errorf("an odd entry: %+v", got)
		}
		if got := (job{dir, "gc", "x", ""}).as(t, other); got.Err != "" || len(got.Collected.Evicted) != 4 {
			t.Errorf("gc: %+v", got)
		}
	})
}
