package ferry

import (
	"github.com/nsferry/nsferry/idshift/userns/usernstest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

// tiny is a source package that needs nothing to be built but what every build has.
var tiny = map[string]string{
	"control":       "Source: tiny\nMaintainer: Nobody <nobody@example.org>\nStandards-Version: 4.6.2\n\nPackage: tiny\nArchitecture: any\nDescription: tiny\n",
	"changelog":     "tiny (1.0) bookworm; urgency=low\n\n  * First.\n\n -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 00:00:00 +0000\n",
	"source/format": "3.0 (native)\n",
	"rules": `#!/usr/bin/make -f
clean:
	rm -rf debian/tiny
build build-arch build-indep binary-indep:
binary: binary-arch
binary-arch:
	mkdir -p debian/tiny/DEBIAN debian/tiny/usr/share/tiny
	cat /etc/debian_version >debian/tiny/usr/share/tiny/built
	dpkg-gencontrol -Pdebian/tiny
	dpkg-deb --root-owner-group --build debian/tiny ..
`,
}

// TestSbuildSoak has sbuild itself build a package in a chroot that was converted from an sstate object, made as Isar makes it,
// and in one that was deployed from a tree, in each format that sbuild takes. The chroot has all that the build needs.
func TestSbuildSoak(t *testing.T) {
	tier.Soak(t)
	tier.User(t, "sbuild's unshare mode is for ordinary users")
	tier.Program(t, "sbuild", "pzstd", "dpkg-source")
	e := usernstest.Ranges(t)[0]
	work := place(t, e.Env)
	shell := func(dir, command string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", command)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+work, "TMPDIR="+work, "LC_ALL=C.UTF-8")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	tarball := tier.Debian(t, "buildd", "--variant=buildd", "--include=fakeroot")
	in, err := os.Open(tarball)
	check(t, err)
	defer in.Close()
	tree := filepath.Join(work, "tree")
	_, err = Unpack(t.Context(), e.Env, in, tree, UnpackOptions{})
	check(t, err)
	shell(work, "mkdir object && cp "+tarball+" object/rootfs.tar && tar -C object -c . | pzstd -q -3 -o object.tar.zst && rm -r object")
	object, err := os.Open(filepath.Join(work, "object.tar.zst"))
	check(t, err)
	defer object.Close()
	for name, text := range tiny {
		path := filepath.Join(work, "tiny-1.0", "debian", name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		check(t, os.WriteFile(path, []byte(text), 0o755))
	}
	shell(work, "dpkg-source -b tiny-1.0")
	for _, c := range []struct {
		name string
		make func(out string) error
	}{
		{"converted.tar.zst", func(out string) error {
			_, err := Convert(t.Context(), object, out, ConvertOptions{Member: "rootfs.tar", Target: Sbuild})
			return err
		}},
		{"deployed.tar.gz", func(out string) error {
			_, err := Pack(t.Context(), e.Env, tree, out, PackOptions{Target: Sbuild})
			return err
		}},
		{"deployed.tar", func(out string) error {
			_, _, err := HandOver(t.Context(), e.Env, tree, out, PackOptions{Target: Sbuild})
			return err
		}},
	} {
		chroot := filepath.Join(work, c.name)
		check(t, c.make(chroot))
		dir := filepath.Join(work, "build-"+c.name)
		check(t, os.Mkdir(dir, 0o755))
		shell(dir, "cp ../tiny_1.0.* . && sbuild --chroot-mode=unshare --chroot="+chroot+" -d bookworm --no-apt-update --no-apt-upgrade"+
			" --no-apt-distupgrade --no-run-lintian --no-run-piuparts --no-run-autopkgtest tiny_1.0.dsc"+
			" && dpkg-deb --fsys-tarfile tiny_1.0_*.deb | tar -xO ./usr/share/tiny/built | grep '^12'")
		check(t, os.Remove(chroot))
	}
}
