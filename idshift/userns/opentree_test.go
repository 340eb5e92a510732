package userns

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// listRest opens what OpenTree left over and lists it.
var listRest = Half[string, []string]{Name: "listRest", Func: func(_ context.Context, in *Inner, rest string) ([]string, error) {
	d, err := ReopenDir(in.Files[0], rest)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}}

// closeDir gives a directory to inner root with mode 0700, or takes it back.
var closeDir = Half[[2]int, int]{Name: "closeDir", Func: func(_ context.Context, in *Inner, to [2]int) (int, error) {
	if err := in.Files[0].Chown(to[0], to[1]); err != nil {
		return 0, err
	}
	return 0, in.Files[0].Chmod(0o700)
}}

func TestOpenTreeBelowAClosedDirectory(t *testing.T) {
	e := testEnv(t)
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/closed/b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"in": "b", "out": "/etc", "up": "../../.."} {
		if err := os.Symlink(to, filepath.Join(dir, "a/closed", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	closed, err := os.Open(filepath.Join(dir, "a/closed"))
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	own := func(uid, gid int) {
		if _, err := closeDir.Run(context.Background(), e, [2]int{uid, gid}, nil, closed); err != nil {
			t.Error(err)
		}
	}
	own(0, 0)
	uid, _ := e.Handoff.UID.ToInside(uint32(os.Getuid()))
	gid, _ := e.Handoff.GID.ToInside(uint32(os.Getgid()))
	defer own(int(uid), int(gid))

	for _, tt := range []struct {
		path string
		rest string // where the way is closed
		want string // names in it, or an error
	}{
		{"a", "", "closed"},
		{"a/../a//closed/", "", "in out up b"},
		{"a/closed/b", "b", "c"},
		{"a/closed//b/../b/./c", "b/../b/./c", ""},
		{"a/closed/in", "in", "c"},
		{"a/closed/out", "out", "cross-device"},
		{"a/closed/up", "up", "cross-device"},
		{"a/closed/no", "no", "no such file"},
		{"no/such", "", "no such file"},
		{"file", "", "not a directory"},
		{"", "", "no such file"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			path := filepath.Join(dir) + "/" + tt.path
			if tt.path == "" {
				path = ""
			}
			root, rest, err := OpenTree(path)
			var names []string
			if err == nil {
				defer root.Close()
				if os.Getuid() != 0 && rest != tt.rest { // no directory is closed to root
					t.Errorf("rest %q, want %q", rest, tt.rest)
				}
				if os.Getuid() == 0 && strings.Contains(tt.want, "cross-device") {
					return // root has followed the link itself
				}
				names, err = listRest.Run(t.Context(), e, rest, nil, root)
			}
			if err != nil {
				if tt.want == "" || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			for name := range strings.FieldsSeq(tt.want) {
				if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+name+" ") {
					t.Errorf("names %q, want %q", names, tt.want)
				}
			}
			if len(names) != len(strings.Fields(tt.want)) {
				t.Errorf("names %q, want %q", names, tt.want)
			}
		})
	}
}

// TestWalkWithoutOpenat2 forces the way for old kernels, which follows no symlink at all.
func TestWalkWithoutOpenat2(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	root, _, err := OpenTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for rest, want := range map[string]error{".": nil, "a/./b": nil, "a//b/": nil, "link/b": unix.ENOTDIR, "link": unix.ENOTDIR, "a/..": unix.EXDEV, "no": unix.ENOENT} {
		d, err := walkDir(root, rest, rest)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", rest, err, want)
		}
		if err == nil {
			if _, err := d.Readdirnames(1); err != nil && err != io.EOF {
				t.Errorf("%s: %v", rest, err)
			}
			d.Close()
		}
	}
}
