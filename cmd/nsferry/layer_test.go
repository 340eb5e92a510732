package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsferry/nsferry/tier"
)

const layerClass = "contrib/isar/meta-nsferry/classes/nsferry.bbclass"

// isarTask runs functions of the layer as bitbake would: what it makes of the class, by dash -e, without a terminal and without LOGNAME.
type isarTask struct {
	*debSite
	model, umask string
}

func (k *isarTask) script(t *testing.T, function string, vars ...string) string {
	t.Helper()
	w := k.path("work")
	layer, err := filepath.Abs(moduleRoot + "/contrib/isar/meta-nsferry")
	must(t, err)
	args := append([]string{moduleRoot + "/.ci/bitbake.py", moduleRoot + "/" + layerClass, function,
		"WORKDIR=" + w, "ROOTFSDIR=" + w + "/rootfs", "IMAGE_ROOTFS=" + w + "/rootfs", "TMPDIR=" + k.path("build"), "DEBDIR=" + k.path("dl"),
		"REPO_ISAR_DIR=" + k.path("repo"), "DISTRO=debian", "SCRIPTSDIR=" + k.dir, "BOOTSTRAP_SRC=" + k.path("bootstrap.tar.zst"),
		"DEPLOYDIR=" + k.path("deploy"), "KERNEL_IMAGE=kernel", "INITRD_DEPLOY_FILE=initrd", "DTB_FILES=board.dtb", "SOURCE_DATE_EPOCH=1700000000",
		"DEPLOY_SCHROOT=" + k.path("chroot"), "SBUILD_CHROOT=" + k.path("chroot.tar.zst"), "CCACHE_DIR=" + k.path("ccache"),
		"BASE_DISTRO=debian", "BASE_DISTRO_CODENAME=bookworm", "BB_CURRENTTASK=image_test", "DEBIAN_SOURCE=hello",
		"DEPLOY_DIR_IMAGE=" + k.path("deploy"),
		"SCHROOT_MOUNTS=" + w + ":/work " + k.path("deploy") + ":/deploy " + k.path("apt-get") + ":/usr/bin/apt-get", "LAYERDIR_nsferry=" + layer,
		"ROOTFS_INITRAMFS_GENERATOR_CMDLINE=echo $kernel_version >/boot/initrd.img-$kernel_version; chmod 600 /boot/initrd.img-*",
		"NSFERRY_MODEL=" + k.model}, vars...)
	out, err := exec.Command("python3", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", function, err, out)
	}
	return string(out)
}

// try runs a script with arguments and input in the directory of the task.
func (k *isarTask) task(t *testing.T, script, stdin string, args ...string) (string, error) {
	t.Helper()
	// What base.bbclass has beside what the layer overrides.
	const base = "run_in_chroot() { r=$1; shift; run_privileged chroot \"$r\" \"$@\"; }\n"
	cmd := exec.Command("setsid", append([]string{"dash", "-c", "umask " + k.umask + "\n" + base + script, "task"}, args...)...)
	cmd.Dir, cmd.Stdin = k.path("here"), strings.NewReader(stdin)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LOGNAME=") && !strings.HasPrefix(v, "USER=") && !strings.HasPrefix(v, "PATH=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+k.dir+":"+os.Getenv("PATH")+":/usr/sbin:/sbin", "SSTATE_CURRTASK=rootfs_install", "ROOT_CLEANDIRS_DIRS=/clean")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (k *isarTask) call(t *testing.T, function, stdin string, args ...string) string {
	t.Helper()
	out, err := k.task(t, k.script(t, function), stdin, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", function, args, err, out)
	}
	return out
}

// inside runs a shell line as inner root of the handoff of --model base, where every owner of a test is mapped.
func (k *isarTask) inside(t *testing.T, line string) string {
	t.Helper()
	return k.run(t, "--model", k.model, "run", "--", "sh", "-ec", "cd "+k.dir+"; "+line)
}

func (k *isarTask) absent(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Lstat(k.path(name)); !os.IsNotExist(err) {
		t.Errorf("%s is there: %v", name, err)
	}
}

func (k *isarTask) content(t *testing.T, name, want string) {
	t.Helper()
	got, err := os.ReadFile(k.path(name))
	if err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", name, got, err, want)
	}
}

// TestIsarLayer runs every function of the layer on a Debian tree.
func TestIsarLayer(t *testing.T) {
	tier.User(t, "is about an ordinary user")
	tier.Program(t, "dash", "python3", "dpkg-deb", "flock")
	tarball := tier.Debian(t, "minbase", "--variant=minbase")
	for _, c := range tier.Soaking([][2]string{{"caller", "077"}, {"caller", "022"}, {"base", "077"}, {"base", "022"}}, [][2]string{{"caller", "077"}, {"base", "022"}}) {
		t.Run(c[0]+"-"+c[1], func(t *testing.T) {
			k := &isarTask{newDebSite(t), c[0], c[1]}
			t.Cleanup(func() {
				for _, name := range []string{"work", "build", "ccache"} {
					_ = exec.Command(k.nsferry, "rm", "--force", k.path(name)).Run() // RemoveAll says what is left
				}
			})
			k.furnish(t, tarball)
			k.rootfs(t)
			k.debs(t)
			k.objects(t)
			k.deployed(t)
			k.chroot(t)
			k.clean(t)
		})
	}
}

// furnish makes what a build has before the layer's first function.
func (k *isarTask) furnish(t *testing.T, tarball string) {
	t.Helper()
	for _, dir := range []string{"here", "deploy", "build", "package", "dl/debian-bookworm", "repo/debian"} {
		must(t, os.MkdirAll(k.path(dir), 0o755))
	}
	lockrun := "#!/bin/sh\n# -r -f LOCK -c COMMAND\nexec flock -s \"$3\" sh -c \"$5\"\n"
	const apt = `#!/bin/sh
[ "$2" != update ] || exit 0
cp /work/tool_1_all.deb /var/cache/apt/archives
{ echo "$@"; [ ! -e /debs ] || head -c 7 /var/cache/apt/archives/cached_1_all.deb; } >>apt.log
`
	must(t, os.WriteFile(k.path("lockrun.py"), []byte(lockrun), 0o755))
	must(t, os.WriteFile(k.path("apt-get"), []byte(apt), 0o755))
	must(t, os.Chmod(k.path("apt-get"), 0o755))
	k.run(t, "unpack", tarball, k.path("work"))
	setup := "echo '#!/bin/sh\necho \"$1 $2\" >\"$2/setup\"' >work/chroot-setup.sh; chmod 755 work/chroot-setup.sh; touch work/dev/console"
	k.run(t, "run", "--bind", k.path("work")+":/mnt", "--", "sh", "-ec", "cd /; "+strings.ReplaceAll(setup, "work/", "mnt/"))
	k.run(t, "pack", k.path("work"), "-o", k.path("bootstrap.tar.zst"))
	k.run(t, "rm", k.path("work"))
	must(t, os.Mkdir(k.path("work"), 0o700))
}

// rootfs: rows 1 to 6 and 20, and the ways of running commands.
func (k *isarTask) rootfs(t *testing.T) {
	t.Helper()
	k.call(t, "create_chroot_parent_dir", "", k.path("build/clean"), k.path("work"))
	k.run(t, "unpack", "--only", "etc", k.path("bootstrap.tar.zst"), k.path("build/clean/left-over"))
	k.call(t, "root_cleandirs", "")
	k.absent(t, "build/clean/left-over")
	k.call(t, "rootfs_prepare", "")
	if got := k.inside(t, "cat work/rootfs/setup"); got != "setup "+k.path("work/rootfs")+"\n" {
		t.Errorf("chroot-setup.sh: %q", got)
	}
	k.inside(t, "touch work/rootfs/stale")
	k.call(t, "rootfs_prepare", "")
	k.inside(t, "! [ -e work/rootfs/stale ]")

	want := strings.TrimSpace(k.run(t, "--model", "base", "map", "to-outside", "0")) + "\n"
	if got := k.call(t, "get_base_subuid", ""); got != want {
		t.Errorf("get_base_subuid: %q, want %q", got, want)
	}
	for _, f := range []string{"run_privileged_here", "run_privileged_heredoc"} {
		if got := k.call(t, f, "echo $(id -u) $1 $#\n", "an argument", "2"); got != "0 an argument 2\n" {
			t.Errorf("%s: %q", f, got)
		}
	}
	if out, err := k.task(t, k.script(t, "run_privileged"), "", "sh", "-c", "exit 7"); err == nil || err.Error() != "exit status 7" {
		t.Errorf("run_privileged: %v\n%s", err, out)
	}
	out := k.call(t, "rootfs_cmd", "", "--bind", k.path("here"), "/opt", "--bind", k.path("work/rootfs/var"), "/var", "--bind", k.path("no-such-lock"), "/var/lib/dpkg/lock",
		"--chdir", "/opt", k.path("work/rootfs"), "--", "sh", "-c", `echo "$(id -u)" "$(pwd)" "$1"; ls -d /isar-apt`, "sh", "two words")
	if out != "0 /opt two words\n/isar-apt\n" {
		t.Errorf("rootfs_cmd: %q", out)
	}
}

// deb builds a package.
func (k *isarTask) deb(t *testing.T, name, version, file string) {
	t.Helper()
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: test <test@localhost>\nDescription: test\n", name, version)
	must(t, os.MkdirAll(k.path(name+"/DEBIAN"), 0o755))
	must(t, os.WriteFile(k.path(name+"/DEBIAN/control"), []byte(control), 0o644))
	if out, err := exec.Command("dpkg-deb", "-Znone", "--root-owner-group", "--build", k.path(name), k.path(file)).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
}

// debs: rows 7 to 9; what the local repository has stays there, also with an epoch.
func (k *isarTask) debs(t *testing.T) {
	t.Helper()
	k.deb(t, "cached", "1", "dl/debian-bookworm/cached_1_all.deb")
	k.deb(t, "local", "1:2", "repo/debian/local_2_all.deb")
	k.deb(t, "fresh", "1:3", "here/fresh_1%3a3_all.deb")
	for _, root := range []string{"work/rootfs", "package/rootfs"} { // a rootfs; what sbuild is given in the place of one
		k.call(t, "deb_dl_dir_import", "", k.path(root), "debian-bookworm")
		k.inside(t, "ls "+root+"/var/cache/apt/archives/cached_1_all.deb")
		copied := "cp here/fresh* " + root + "/var/cache/apt/archives/; cp repo/debian/local* " + root + "/var/cache/apt/archives/local_1%3a2_all.deb"
		k.run(t, "--model", "caller", "run", "--", "chmod", "-R", "a+rX", k.path("here"), k.path("repo"))
		k.inside(t, copied)
		k.call(t, "deb_dl_dir_export", "", k.path(root), "debian-bookworm")
		if _, err := os.Stat(k.path("dl/debian-bookworm/fresh_1%3a3_all.deb")); err != nil {
			t.Error(err)
		}
		k.absent(t, "dl/debian-bookworm/local_1%3a2_all.deb")
		must(t, os.Remove(k.path("dl/debian-bookworm/fresh_1%3a3_all.deb")))
	}
	k.call(t, "run_privileged", "", "rm", "-rf", k.path("package/rootfs")) // as dpkg_runbuild does
}

// objects: rows 11 and 12, and times as do_rootfs_finalize sets them.
func (k *isarTask) objects(t *testing.T) {
	t.Helper()
	k.call(t, "do_rootfs_finalize", "")
	if late := k.inside(t, "find work/rootfs -newermt @1700000000"); late != "" {
		t.Errorf("later than the epoch: %s", late)
	}
	k.inside(t, "rm work/rootfs/var/cache/apt/archives/*.deb") // neither they nor apt's lock are in an object
	k.run(t, "--model", k.model, "pack", k.path("work/rootfs"), "--exclude", "var/cache/apt/archives/lock", "-o", k.path("before.tar.zst"))
	k.call(t, "rootfs_install_sstate_prepare", "")
	k.inside(t, "touch work/rootfs/stale")
	k.call(t, "rootfs_install_sstate_finalize", "")
	k.absent(t, "here/rootfs.tar")
	k.inside(t, "! [ -e work/rootfs/stale ]")
	if out, err := k.try("--model", k.model, "diff", k.path("work/rootfs"), k.path("before.tar.zst")); err != nil {
		t.Errorf("restored: %v\n%s", err, out)
	}
	k.call(t, "rootfs_install_sstate_finalize", "") // after a build there is no object
}

// deployed: rows 17 and 18.
func (k *isarTask) deployed(t *testing.T) {
	t.Helper()
	k.inside(t, `cd work/rootfs; mkdir -p usr/lib/linux-image-6.1; echo dtb >usr/lib/linux-image-6.1/board.dtb
		echo kernel >boot/vmlinuz-6.1; ln -sf boot/vmlinuz-6.1 vmlinuz; mkdir -p usr/lib/modules/6.1; chmod -R a+rX .`)
	k.call(t, "do_copy_boot_files", "")
	k.content(t, "deploy/kernel", "kernel\n")
	k.content(t, "deploy/board.dtb", "dtb\n")
	k.call(t, "rootfs_generate_initramfs", "")
	k.content(t, "deploy/initrd", "6.1\n")
	k.inside(t, "cp -r work/rootfs/usr/lib/linux-image-6.1 work/rootfs/usr/lib/linux-image-6.2")
	if out, err := k.task(t, k.script(t, "do_copy_boot_files"), ""); err == nil {
		t.Errorf("two device trees of one name: %s", out)
	}
}

// chroot: rows 14 to 16 and 19. Here apt-get is a script that downloads a package and a log of its calls.
func (k *isarTask) chroot(t *testing.T) {
	t.Helper()
	k.call(t, "sbuildchroot_deploy_tar", "")
	k.absent(t, "work/rootfs")
	if out, err := k.try("verify", "--target", "sbuild", k.path("chroot.tar.zst")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	must(t, os.RemoveAll(k.path("work")))
	must(t, os.Mkdir(k.path("work"), 0o700))
	k.call(t, "nsferry_parent", "", k.path("work"))
	k.deb(t, "tool", "1", "work/tool_1_all.deb")

	must(t, os.WriteFile(k.path("deploy/begun"), []byte("not yet"), 0o600)) // as the task does for ext4
	script := k.script(t, "imager_run_unshare", "INSTALL_image_test=wic-tools", "BOM_image_test=dpkg bash")
	out, err := k.task(t, script, "a line\nfrom standard input\n", "-p", "-d", "/srv", "-u", "root", "--", "/bin/sh", "-c", "read x; cat >/deploy/image; cat /deploy/image >/deploy/begun; echo done >/tool")
	if err != nil {
		t.Fatalf("imager: %v\n%s", err, out)
	}
	for _, image := range []string{"deploy/image", "deploy/begun"} {
		k.content(t, image, "from standard input\n")
		must(t, os.WriteFile(k.path(image), nil, 0)) // they are ours
	}
	if _, err := os.Stat(k.path("dl/debian-bookworm/tool_1_all.deb")); err != nil {
		t.Error(err)
	}
	manifest, err := os.ReadFile(k.path("work/imager.manifest"))
	if err != nil || !strings.Contains(string(manifest), "|bash:amd64|") || strings.Count(string(manifest), "\n") != 2 {
		t.Errorf("manifest: %q, %v", manifest, err)
	}
	if out, err = k.task(t, script, "[ ! -e /tool ] && cat apt.log && : >/deploy/half && exit 5\n", "-p"); err == nil || !strings.Contains(out, "install wic-tools\n!<arch>") {
		t.Errorf("a here-document that fails: %v\n%s", err, out)
	}
	must(t, os.WriteFile(k.path("deploy/half"), nil, 0))
	k.call(t, "fetch_common_source_unshare", "")
	if got := k.inside(t, "cat work/apt.log"); !strings.Contains(got, "source hello") {
		t.Errorf("sources: %q", got)
	}
	must(t, os.MkdirAll(k.path("sources/hello/of-an-interrupted-run"), 0o755))
	k.run(t, "run", "--rootfs", k.path("chroot.tar.zst"), "--commit", k.path("fetch.tar.zst"), "--bind", k.dir+":/opt", "--", "cp", "/opt/apt-get", "/usr/bin/apt-get")
	if out, err := k.task(t, k.script(t, "nsferry_fetch_source", "SBUILD_CHROOT="+k.path("fetch.tar.zst"), "NSFERRY_SOURCE=hello", "NSFERRY_SOURCE_DIR="+k.path("sources/hello")), ""); err != nil {
		t.Errorf("apt://: %v\n%s", err, out)
	}
	if got, err := os.ReadFile(k.path("sources/hello/apt.log")); err != nil || !strings.HasSuffix(strings.TrimSpace(string(got)), "source hello") {
		t.Errorf("apt://: %q, %v", got, err)
	}
	for _, name := range []string{"sources/hello/of-an-interrupted-run", "sources/hello.partial", "work/source"} {
		k.absent(t, name)
	}
	if out, err := k.task(t, k.script(t, "sbuild_add_unshare_mounts", "SBUILD_CONFIG="+k.path("sbuild.conf")), ""); err != nil {
		t.Errorf("sbuild: %v\n%s", err, out)
	}
	k.content(t, "sbuild.conf", "$unshare_tmpdir_template = '"+k.path("build/nsferry/sbuild/tmp.sbuild.XXXXXXXXXX")+"';\n")
	k.run(t, "--model", "base", "run", "--", "test", "-x", k.path("build/nsferry/sbuild"))
	k.call(t, "dpkg_prepare_unshare_ccache", "")
	k.run(t, "--model", "base", "run", "--", "sh", "-ec", "cd "+k.path("ccache")+"; mkdir a; setpriv --reuid=999 --clear-groups touch a/b")
	if out, err := exec.Command(filepath.Join(k.dir, "nsferry"), "rm", k.path("ccache/a")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// clean: row 20; whoever owns the work directory, with the stamps and after the functions that recipes have added.
func (k *isarTask) clean(t *testing.T) {
	t.Helper()
	k.run(t, "--model", k.model, "unpack", k.path("bootstrap.tar.zst"), k.path("work/rootfs"))
	for _, name := range []string{"stamp.do_build", "stamp.do_fetch", "other.do_build"} {
		must(t, os.WriteFile(k.path(name), nil, 0o644))
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", k.dir+":"+path) // in this process it is Python that calls nsferry
	if got := k.script(t, "do_clean", "CLEANFUNCS=first second", "STAMPCLEAN="+k.path("stamp.*")); got != "called first\ncalled second\n" {
		t.Errorf("do_clean: %q", got)
	}
	for _, name := range []string{"work", "stamp.do_build", "stamp.do_fetch"} {
		k.absent(t, name)
	}
	must(t, os.Remove(k.path("other.do_build")))
}

// TestIsarLayerShell holds what bitbake makes of the class to dash and shellcheck.
func TestIsarLayerShell(t *testing.T) {
	tier.Program(t, "dash", "python3", "shellcheck")
	k := &isarTask{&debSite{dir: "/build"}, "caller", "022"}
	file := filepath.Join(t.TempDir(), "layer.sh")
	must(t, os.WriteFile(file, []byte(k.script(t, "")), 0o644))
	for _, argv := range [][]string{
		{"dash", "-n", file},
		// What bitbake has expanded is constant, options are lists, and E is how Isar spells a call for its effect.
		{"shellcheck", "--shell=dash", "--exclude=SC2050,SC2086,SC2034,SC2016,SC2194,SC2043", file},
		{"shellcheck", "--exclude=SC2016", moduleRoot + "/contrib/isar/meta-nsferry/files/imager"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", argv, err, out)
		}
	}
}
