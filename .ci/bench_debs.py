#!/usr/bin/python3
"""bench_debs.py NSFERRY [ROUNDS]: the deb cache beside the shell that Isar uses today, in alternating runs: 300 real debs and 3000 small
ones, in and out, all new and with nothing to do, on one filesystem and between two with cold caches.

Debs are downloaded and built once and cached; "bench_debs.py fill" does only that. BENCH_PLACE is a directory on the filesystem to measure (default: TMPDIR), BENCH_OTHER one on
another filesystem; without it the runs between two are left out and that is said. Between two, caches are dropped before each run by the command BENCH_DROP,
or the debs are at least put out of the page cache. NSFERRY_MODEL is the model (base). BENCH_DEBS is "real small" or one of them.

The shell enters namespaces by `nsferry run`, which is faster than what it uses itself. It locks Isar's own repository by Isar's script scripts/lockrun.py,
a Python program that imports bitbake: BENCH_ISAR names a checkout to take it from; without one a few lines that import next to nothing stand in for it."""
import concurrent.futures, hashlib, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time

nsferry, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
cache = pathlib.Path(os.environ.get("NSFERRY_BENCH_CACHE") or os.path.expanduser("~/.cache/nsferry-bench"))
real = "build-essential git vim python3-dev postfix cmake gdb autoconf libtool xsltproc openssh-server debhelper".split()

SHELL = r'''
set -e
rootfs=$2 dl=$3 repo=$4 archives=$2/var/cache/apt/archives
import() {
    "$NSFERRY" run -- sh -ec 'mkdir -p "$1"; chmod 777 "$1"' sh "$archives"
    [ -d "$dl" ] || return 0
    ( flock 9
      find "$dl" -type f -iname '*\.deb' | while read -r p; do
          ln -Pf -t "$archives/" "$p" 2>/dev/null || cp -n --no-preserve=owner -t "$archives/" "$p"
      done ) 9>"$dl.lock"
}
export_() {
    mkdir -p "$dl"
    local_debs=$(lockrun -r -f "$repo.lock" -c "find '$repo' -name '*.deb' -print")
    export local_debs archives dl
    flock "$dl.lock" /bin/bash -s <<'EOF'
        set -e
        find "$archives/" -maxdepth 1 -type f -iname '*\.deb' | while read -r p; do
            [ -f "$dl/${p##*/}" ] && continue
            package=$(echo "$local_debs" | grep -F -m 1 "${p##*/}" | cat)
            if [ -n "$package" ]; then cmp --silent "$package" "$p" && continue; fi
            ln -Pf "$p" "$dl" 2>/dev/null || cp -n "$p" "$dl"
        done
EOF
}
lockrun() {
    if [ -n "$BENCH_ISAR" ]; then "$BENCH_ISAR/scripts/lockrun.py" "$@"; return; fi
    python3 -c 'import fcntl, subprocess, sys
with open(sys.argv[3], "a") as f:
    fcntl.flock(f, fcntl.LOCK_SH)
    subprocess.run(sys.argv[5], check=True, shell=True)' "$@"
}
"$1"
'''

def run(*argv, **more):
    return subprocess.run([str(a) for a in argv], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)

def real_debs():
    """About 300 debs of a mirror, with the lists that know them."""
    at = cache / "debs-real"
    if not (at / "done").exists():
        shutil.rmtree(at, ignore_errors=True)
        (at / "debs" / "partial").mkdir(parents=True)
        run("apt-get", "-y", "-oDir::State::status=/dev/null", f"-oDir::Cache::archives={at}/debs", "-oDebug::NoLocking=1", "--download-only", "install", *real)
        (at / "lists").mkdir()
        for p in pathlib.Path("/var/lib/apt/lists").glob("*_Packages*"):
            shutil.copy(p, at / "lists")
        (at / "done").touch()
    return at

def small_debs(n):
    """n debs that dpkg-deb has made, with a list."""
    at = cache / f"debs-{n}"
    if not (at / "done").exists():
        shutil.rmtree(at, ignore_errors=True)
        (at / "debs").mkdir(parents=True)
        (at / "lists").mkdir()
        names = []
        with tempfile.TemporaryDirectory() as work:
            for i in range(n):
                d = pathlib.Path(work, str(i), "DEBIAN")
                d.mkdir(parents=True)
                (d / "control").write_text(f"Package: small{i}\nVersion: 1:{i}\nArchitecture: all\nMaintainer: a <a@b>\nDescription: d\n")
                names.append(f"{d.parent}\n{at}/debs/small{i}_1%3a{i}_all.deb\n")
            run("xargs", "-P", os.cpu_count(), "-n", "2", "-d", "\n", "dpkg-deb", "-Znone", "--root-owner-group", "--build", input="".join(names).encode())
        with open(at / "lists" / "small_Packages", "w") as out:
            for i in range(n):
                data = (at / "debs" / f"small{i}_1%3a{i}_all.deb").read_bytes()
                out.write(f"Package: small{i}\nVersion: 1:{i}\nArchitecture: all\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n")
        (at / "done").touch()
    return at

class Site:
    """A rootfs at one place and a cache at another, filled from a set of debs."""
    def __init__(self, debs, place, dl_place):
        self.work = pathlib.Path(tempfile.mkdtemp(dir=place))
        self.dlwork = pathlib.Path(tempfile.mkdtemp(dir=dl_place))
        os.chmod(self.work, 0o777)
        self.root, self.dl, self.repo = self.work / "root", self.dlwork / "dl", self.work / "repo"
        self.archives = self.root / "var/cache/apt/archives"
        self.repo.mkdir()
        self.source = self.work / "source" # where inner root can read
        shutil.copytree(debs / "lists", self.source / "lists")
        (self.source / "debs").mkdir()
        self.files = [p for p in (debs / "debs").iterdir() if p.suffix == ".deb"]
        for p in self.files:
            shutil.copy(p, self.source / "debs")
        run("chmod", "-R", "go+rX", self.work)

    def inside(self, script, *args):
        run(nsferry, "run", "--", "sh", "-ec", script, "sh", *args)

    def fresh(self, cached, downloaded):
        """A new rootfs with the lists; the debs in the cache, in the rootfs, or in both."""
        self.clear()
        self.root.mkdir()
        os.chmod(self.root, 0o777)
        self.inside('mkdir -p "$1/var/cache/apt/archives/partial" "$1/var/lib/apt/lists"; cp "$2"/* "$1/var/lib/apt/lists"', self.root, self.source / "lists")
        if downloaded or cached:
            self.inside('find "$2" -name "*.deb" -exec cp -t "$1" {} +', self.archives, self.source / "debs")
        if cached: # by an export of its own, so that its digests are on record, as those of a cache in use are
            run(nsferry, "debs", "export", self.root, self.dl)
        if cached and not downloaded:
            self.inside('rm -rf "$1/var/cache"; mkdir "$1/var/cache"', self.root)

    def forget(self):
        """The digests on record, as if somebody else had filled the cache."""
        shutil.rmtree(os.path.expanduser("~/.cache/nsferry/debs"), ignore_errors=True)

    def clear(self):
        run(nsferry, "rm", "--force", self.root)
        shutil.rmtree(self.dl, ignore_errors=True)

    def close(self):
        self.clear()
        run(nsferry, "rm", "--force", self.work, self.dlwork)

    def chill(self):
        """Caches dropped, or at least the debs put out of the page cache, where the filesystem is not that cache itself."""
        if os.environ.get("BENCH_DROP"):
            return run("sh", "-c", os.environ["BENCH_DROP"])
        # Inside, since the archives are inner root's; DL lies beside them or elsewhere.
        self.inside('command -v python3 >/dev/null && exec python3 -c "$@"', """import os, sys
for at in sys.argv[1:]:
    for name in os.listdir(at) if os.path.isdir(at) else ():
        if name.endswith(".deb"):
            fd = os.open(at + "/" + name, os.O_RDONLY)
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)""", self.archives, self.dl)

def timed(*argv):
    start = time.perf_counter()
    run(*argv, env=dict(os.environ, NSFERRY=nsferry, BENCH_ISAR=os.environ.get("BENCH_ISAR", "")))
    return time.perf_counter() - start

def measure(what, site, want, prepare, ours, theirs, cold=False):
    a, b = [], []
    for i in range(rounds):
        for mine in ((True, False), (False, True))[i % 2]:
            prepare(mine)
            if cold:
                site.chill()
            (a if mine else b).append(timed(*(ours if mine else theirs)))
    x, y = statistics.median(a), statistics.median(b)
    verdict = "" if y >= want * x else f"   BELOW {want:g}"
    print(f"{what:54} nsferry {x*1000:8.1f} ms   shell {y*1000:9.1f} ms   {y/x:6.1f} times{verdict}", flush=True)

def bounds(site):
    """What nothing that hashes, and nothing that starts, can be faster than here."""
    def digest(p):
        with open(p, "rb") as f:
            h = hashlib.sha256()
            while data := f.read(256 << 10):
                h.update(data)
    times = {"hashing the debs with all cores, in one process": lambda: list(pool.map(digest, site.files)),
             "starting nsferry to print its version": lambda: run(nsferry, "debs", "--version"), "starting /bin/true": lambda: run("/bin/true")}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for what, f in times.items():
            all_ = []
            for _ in range(max(rounds, 9)):
                start = time.perf_counter()
                f()
                all_.append(time.perf_counter() - start)
            print(f"    {what}: {statistics.median(all_)*1000:.1f} ms", flush=True)

def compare(name, debs, place, dl_place, cross):
    s = Site(debs, place, dl_place)
    n = len(s.files)
    name = f"{name}: {n} debs, {sum(p.stat().st_size for p in s.files) >> 20} MiB"
    imp, exp = (nsferry, "debs", "import", "-q", s.dl, s.root), (nsferry, "debs", "export", "-q", "--local-repo", s.repo, s.root, s.dl)
    shell = lambda what: ("sh", "-c", SHELL, "sh", what, s.root, s.dl, s.repo)
    try:
        new = 1 if cross else 5
        measure(f"{name}, import, all new", s, new, lambda mine: s.fresh(True, False), imp, shell("import"), cross)
        measure(f"{name}, import, all new, nothing on record", s, new, lambda mine: (s.fresh(True, False), s.forget()), imp, shell("import"), cross)
        measure(f"{name}, export, all new", s, new, lambda mine: s.fresh(False, True), exp, shell("export_"), cross)
        if not cross:
            bounds(s)
            def idle(first):
                def prepare(mine, state={}):
                    if state.get("of") != mine: # what each of them has left behind
                        s.fresh(True, False)
                        for argv in first[mine]: timed(*argv)
                        state["of"] = mine
                return prepare
            measure(f"{name}, import, nothing to do", s, 20, idle({True: [imp], False: [shell("import")]}), imp, shell("import"))
            measure(f"{name}, export, nothing to do", s, 20, idle({True: [imp, exp], False: [shell("import"), shell("export_")]}), exp, shell("export_"))
    finally:
        s.close()

if sys.argv[1] == "fill":
    real_debs(), small_debs(3000)
    sys.exit()
place = os.environ.get("BENCH_PLACE") or tempfile.gettempdir()
other = os.environ.get("BENCH_OTHER")
for name in os.environ.get("BENCH_DEBS", "real small").split():
    debs = {"real": real_debs, "small": lambda: small_debs(3000)}[name]()
    compare(name, debs, place, place, False)
    if other:
        compare(name + ", two filesystems, cold", debs, place, other, True)
if not other:
    print("between two filesystems: not measured, BENCH_OTHER names no directory")
