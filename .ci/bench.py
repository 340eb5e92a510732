"""bench.py NSFERRY ROUNDS: the measuring part of .ci/bench. Works on rootfs.tar in the current directory."""

import os
import statistics
import subprocess
import sys
import time

NSFERRY, ROUNDS = sys.argv[1], int(sys.argv[2])
MIB = 1 << 20


def once(argv):
    """Runs argv; returns its wall time in seconds and the peak memory of it and of all that it waited for, in MiB."""
    begin = time.monotonic()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.monotonic() - begin
    if status != 0:
        sys.exit(f"bench: status {status}: {' '.join(argv)}")
    return seconds, usage.ru_maxrss / 1024


def inside(*argv):
    """argv as inner root in a namespace like that of nsferry's own halves."""
    return [NSFERRY, "run", "--", *argv]


def shell(script):
    return inside("bash", "-o", "pipefail", "-ec", script)


def remove(*names):
    for name in names:
        if os.path.isdir(name):
            subprocess.run([NSFERRY, "--quiet", "rm", name], check=True)
        elif os.path.exists(name):
            os.unlink(name)


def duel(title, contenders, clean, limit=None):
    """Alternates the contenders, the first of which is ours; prints medians, and each one's time over ours."""
    times = {name: [] for name in contenders}
    peak = 0
    for _ in range(ROUNDS):
        for name, argv in contenders.items():
            remove(*clean)
            os.sync()
            seconds, memory = once(argv)
            times[name].append(seconds)
            if name == "nsferry":
                peak = max(peak, memory)
    ours = statistics.median(times["nsferry"])
    print(f"\n{title}")
    for name, t in times.items():
        m = statistics.median(t)
        print(f"  {name:24} {m:7.2f} s  (best {min(t):.2f}, worst {max(t):.2f})  {m / ours:5.2f} x ours")
    print(f"  peak memory of nsferry: {peak:.0f} MiB" + (f"; wanted: {limit}" if limit else ""))


def chosen(title, make, contenders, limit):
    """Like duel, for work that uses up what it works on: make() sets that up anew for each run, and is not measured."""
    times = {name: [] for name in contenders}
    for i in range(ROUNDS):
        names = list(contenders)
        for name in names if i % 2 == 0 else reversed(names):
            make()
            os.sync()
            times[name].append(once(contenders[name])[0])
    ours = statistics.median(times["nsferry"])
    print(f"\n{title}")
    for name, t in times.items():
        m = statistics.median(t)
        print(f"  {name:24} {m:7.2f} s  (best {min(t):.2f}, worst {max(t):.2f})  {m / ours:5.2f} x ours; wanted: {limit}")


def conversion():
    """The chroot of an sstate object for sbuild, beside what Isar does today: the object's rootfs.tar, a tree, a new archive, all gone again."""
    once(shell("mkdir space/object && tar --xattrs --acls --numeric-owner -C tree -cpSf space/object/rootfs.tar . "
               "&& tar -C space/object -c . | pzstd -q -8 -o space/object.tar.zst && rm -r space/object"))
    leave = "--exclude=./isar-apt --exclude='./var/cache/apt/archives/*'"
    for level in (8, 3):  # 8 is what Isar has
        duel(f"convert of an sstate object for sbuild, level {level}", {
            "nsferry": [NSFERRY, "convert", "--force", "space/object.tar.zst", "--member", "rootfs.tar", "--exclude", "isar-apt",
                        "--target", "sbuild", "--level", str(level), "-o", "space/ours.tar.zst"],
            "tar, tar, zstd, rm": shell(
                "mkdir space/out && cd space/out && tar -I pzstd -xf ../object.tar.zst && mkdir tree "
                "&& tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf rootfs.tar -C tree && rm rootfs.tar "
                f"&& tar -C tree --xattrs --acls --numeric-owner {leave} -cpSf - . | zstd -q -{level} -T0 >../theirs.tar.zst "
                "&& sync -f ../theirs.tar.zst && rm -rf tree"),
        }, ["space/out"], "theirs at least 2 x ours")
        once([NSFERRY, "diff", "space/ours.tar.zst", "space/theirs.tar.zst"])
        ours, theirs = os.path.getsize("space/ours.tar.zst"), os.path.getsize("space/theirs.tar.zst")
        print(f"  equal contents; ours {ours / MIB:.1f} MiB, theirs {theirs / MIB:.1f} MiB, ratio {ours / theirs:.3f}")
    duel("convert of our own archive without usr/share/doc", {
        "nsferry": [NSFERRY, "convert", "own.tar.zst", "--exclude", "usr/share/doc", "-o", "space/ours.tar.zst"],
        "zstd -dc | tar --delete": shell("zstd -dc own.tar.zst | tar --delete ./usr/share/doc | zstd -q -3 -T0 >space/theirs.tar.zst"),
    }, ["space/ours.tar.zst", "space/theirs.tar.zst"])
    remove("space/object.tar.zst")


def owners():
    """shift, clamp and rm: what changes a tree in place, beside what people do instead."""
    state = ["base", "caller"]

    times, again, tar = [], [], []
    for _ in range(ROUNDS):
        for _ in range(2):
            times.append(once([NSFERRY, "--quiet", "shift", "tree", "--from", state[0], "--to", state[1]])[0])
            state.reverse()
        remove("space/out")
        os.sync()
        again.append(once([NSFERRY, "--quiet", "unpack", "own.tar.zst", "space/out"])[0])
        remove("space/out")
        os.sync()
        tar.append(once(shell("mkdir space/out && tar --zstd --xattrs --xattrs-include='*' --acls --numeric-owner -xpf own.tar.zst -C space/out"))[0])
    ours = statistics.median(times)
    print(f"\nshift of the tree, base to caller and back\n  nsferry {ours:.2f} s (best {min(times):.2f})")
    for name, t in {"unpacking it again": again, "tar --zstd -xp": tar}.items():
        print(f"  {name:24} {statistics.median(t):.2f} s (best {min(t):.2f}), {statistics.median(t) / ours:.2f} x ours; wanted: at least 3")

    epoch = 1000000000  # before every file of the tree
    chosen("clamp of the tree", lambda: once(inside("find", "tree", "-exec", "touch", "-h", "-d", "@1500000000", "{}", "+")), {
        "nsferry": [NSFERRY, "--quiet", "clamp", "tree", "--epoch", str(epoch)],
        "find -exec touch \\;": inside("find", "tree", "-newermt", f"@{epoch}", "-exec", "touch", "-h", "-d", f"@{epoch}", "{}", ";"),
    }, "at least 20")

    def hundred_thousand():
        remove("space/many")
        once(shell("mkdir space/many && cd space/many && seq 1000 | xargs mkdir && for d in *; do (cd $d && seq 100 | xargs touch); done; chmod 0 [1-9]"))

    chosen("rm of 100,000 files", hundred_thousand, {
        "nsferry": [NSFERRY, "--quiet", "rm", "space/many"],
        "rm -rf": inside("rm", "-rf", "space/many"),
    }, "at least 1")


def repeat(title, argv, limit):
    times = [once(argv)[0] * 1000 for _ in range(max(20, 4 * ROUNDS))]
    print(f"  {title:32} median {statistics.median(times):6.1f} ms, best {min(times):6.1f} ms; wanted: at most {limit} ms")


def throwaway():
    """A command in a tree that is as before afterwards: over a master, and as it is done without: unpack, run, delete."""
    os.environ["XDG_STATE_HOME"] = os.path.abspath("state")
    for archive in "own.tar.zst", "space/foreign.tar.zst":
        once([NSFERRY, "run", "--rootfs", archive, "--", "true"])
        repeat(f"run --rootfs {archive} -- true", [NSFERRY, "run", "--rootfs", archive, "--", "true"], 60)
    repeat("  the same, --upper tmpfs", [NSFERRY, "run", "--rootfs", "own.tar.zst", "--upper", "tmpfs", "--", "true"], 60)
    repeat("  a directory, --ephemeral", [NSFERRY, "run", "--rootfs", "tree", "--ephemeral", "--", "true"], 400)
    repeat("  the same, --upper clone", [NSFERRY, "run", "--rootfs", "own.tar.zst", "--upper", "clone", "--", "true"], 10000)
    n = f"{NSFERRY} --quiet"
    repeat("  unpack, run, rm", ["sh", "-c", f"{n} unpack own.tar.zst space/old && {n} run --rootfs space/old -- true && {n} rm space/old"], 10000)
    remove("state")


def unpacking():
    def unpackers(archive):
        return {
            "nsferry": [NSFERRY, "unpack", archive, "space/out"],
            "tar --zstd -xp": shell(f"mkdir space/out && tar --zstd --xattrs --xattrs-include='*' --acls --numeric-owner -xpf {archive} -C space/out"),
            "bsdtar -xp": shell(f"mkdir space/out && bsdtar --numeric-owner -xpf {archive} -C space/out"),
        }

    duel("unpack our own archive", unpackers("own.tar.zst"), ["space/out"], "tar at least 1.4 x ours")
    duel("unpack a foreign single-frame archive", unpackers("space/foreign.tar.zst"), ["space/out"], "tar at least 1.1 x ours")
    remove("space/out")


def packing():
    packed = "tar --xattrs --acls --numeric-owner -cS . | zstd -q -3 -T0 >../space/out.tar.zst"
    duel("pack", {
        "nsferry": [NSFERRY, "pack", "tree", "-o", "space/out.tar.zst"],
        "tar | zstd -3 -T0": shell(f"cd tree && {packed}"),
        "bsdtar --zstd": shell("cd tree && bsdtar --numeric-owner --zstd --options zstd:threads=0 -cf ../space/out.tar.zst ."),
    }, ["space/out.tar.zst"], "tar | zstd at least 0.91 x ours")


def latency():
    print("\nlatency")
    repeat("run -- true", inside("true"), 15)
    repeat("ls of our own archive", [NSFERRY, "ls", "own.tar.zst"], 60)
    repeat("cat of one file", [NSFERRY, "cat", "own.tar.zst", "etc/os-release"], 60)


def main():
    os.umask(0o022)
    os.mkdir("space")
    os.chmod("space", 0o1777)  # the peers write as inner root, who is nobody in particular here
    once([NSFERRY, "unpack", "rootfs.tar", "tree"])
    once([NSFERRY, "pack", "tree", "-o", "own.tar.zst"])
    once(shell("cd tree && tar --xattrs --acls --numeric-owner --sort=name -cS . | zstd -q -3 -T0 >../space/foreign.tar.zst"))
    raw = int(subprocess.check_output("zstd -dc own.tar.zst | wc -c", shell=True))
    own, foreign = os.path.getsize("own.tar.zst"), os.path.getsize("space/foreign.tar.zst")
    entries = sum(1 for _ in subprocess.Popen([NSFERRY, "ls", "own.tar.zst"], stdout=subprocess.PIPE).stdout)
    print(f"tree: {raw / MIB:.0f} MiB as tar, {entries} entries, {os.cpu_count()} processors, {ROUNDS} rounds")
    print(f"size: ours {own / MIB:.1f} MiB, tar | zstd -3 {foreign / MIB:.1f} MiB, ratio {own / foreign:.3f}; wanted: at most 1.03")

    for work in os.environ.get("BENCH_WORK", "unpacking packing latency throwaway conversion owners").split():
        globals()[work]()
    remove("tree")


main()
