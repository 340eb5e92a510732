"""bench_sstate.py NSFERRY ROUNDS: what a save costs that has an earlier one to stand on, beside tar | zstd -3 -T0, which always does all
of it. Works on rootfs.tar in the current directory. Times are without the final fsync, which the peers do not do either; its cost is a
column of its own."""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time

NSFERRY, ROUNDS = sys.argv[1], int(sys.argv[2])
PACKAGE = os.environ.get("BENCH_PACKAGE", "gdb")
INDEX = "cache/nsferry/index"
os.environ.update(XDG_CACHE_HOME=os.path.abspath("cache"), NSFERRY_STORE=os.path.abspath("store"))


def written():
    """MiB that the children have written so far, by the kernel's count of pages that became dirty; tmpfs has none."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock >> 11


def run(*argv):
    begin = time.monotonic()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    return time.monotonic() - begin, done.stdout


def inside(script):
    return run(NSFERRY, "run", "--", "bash", "-o", "pipefail", "-ec", script)


def peer(tree):
    seconds, _ = inside(f"tar -C {tree} --numeric-owner -cf - . | zstd -q -3 -T0 >space/peer.tar.zst")
    os.unlink("space/peer.tar.zst")
    return seconds


numbers = iter(range(1 << 30))


def save(tree, *flags):
    """Saves under a new key; returns seconds without the sync, those of the sync, and the summary."""
    seconds, out = run(NSFERRY, "--json", "sstate", "save", f"bench-{next(numbers)}", tree, *flags)
    result = json.loads(out)["result"]
    return seconds - result["sync"], result["sync"], result


def drop(key):
    for directory, _, names in os.walk("store"):
        for name in names:
            if name.startswith(key + ".tar.zst"):
                os.unlink(os.path.join(directory, name))


def measure(title, tree, base, want=None):
    """Alternates saves on top of base, with the index as it was when base was made, and the peer."""
    ours, syncs, theirs, disk = [], [], [], 0
    for _ in range(ROUNDS):
        shutil.rmtree(INDEX)
        shutil.copytree("index.kept", INDEX)
        os.sync()
        before = written()
        seconds, sync, result = save(tree, "--base", base)
        disk = written() - before
        ours.append(seconds)
        syncs.append(sync)
        drop(result["key"])
        os.sync()
        theirs.append(peer(tree))
    a, b = statistics.median(ours), statistics.median(theirs)
    r = result["reuse"]
    print(f"  {title:34} {a:6.3f} s (best {min(ours):.3f})  fsync {statistics.median(syncs):6.3f} s  tar | zstd {b:5.2f} s (best {min(theirs):.2f})"
          f"  {b / a:5.1f} x ours  {r['copied']} of {result['frames']} frames copied, {r['bytesRead'] >> 20} MiB read,"
          f" {disk} MiB written, {r.get('shared', 0) >> 20} shared"
          + (f"; wanted: {want}" if want else ""), flush=True)


def based(tree):
    """Saves the tree from scratch, keeps its index, and returns the key."""
    time.sleep(2.1)  # until nothing is too young for an index, whatever the filesystem's clock
    before = written()
    seconds, sync, result = save(tree, "--base", "none", "--paranoid")
    disk = written() - before
    shutil.rmtree("index.kept", ignore_errors=True)
    shutil.copytree(INDEX, "index.kept")
    print(f"\n{tree}: {result['entries']} entries, {result['content'] >> 20} MiB, {result['stored'] >> 20} MiB stored;"
          f" from scratch {seconds:.2f} s, fsync {sync:.2f} s, {disk} MiB written", flush=True)
    return result["key"]


def change(tree, fraction, scattered):
    """Appends a byte to files that hold fraction of the content: whole directories, as packages do, or single files anywhere."""
    script = f"""
import os, random
random.seed(1)
dirs = []
for d, _, names in os.walk({tree!r}):
    files = [(p, os.lstat(p).st_size) for p in (os.path.join(d, n) for n in names) if os.path.isfile(p) and not os.path.islink(p)]
    dirs += [[f] for f in files] if {scattered} else [files]
total = sum(size for files in dirs for _, size in files)
random.shuffle(dirs)
done = 0
for files in dirs:
    if done >= {fraction} * total:
        break
    for p, size in files:
        open(p, "ab").write(b"x")
        done += size
"""
    run(NSFERRY, "run", "--", "python3", "-c", script)


def apt(script):
    run(NSFERRY, "--quiet", "run", "--rootfs", "tree", "--apt", "--", "sh", "-ec", script)


def copy(tree):
    run(NSFERRY, "--quiet", "unpack", "own.tar.zst", tree)


def main():
    os.umask(0o022)
    os.makedirs("space", exist_ok=True)
    os.chmod("space", 0o1777)
    run(NSFERRY, "--quiet", "unpack", "rootfs.tar", "tree")
    apt("apt-get -qq update && apt-get clean")  # the lists are not the package's
    run(NSFERRY, "--quiet", "pack", "-f", "tree", "-o", "own.tar.zst")
    key = based("tree")
    measure("nothing changed", "tree", key, "at least 15")
    before = written()
    seconds, _ = run(NSFERRY, "--quiet", "sstate", "restore", key, "restored")
    print(f"  restored: {seconds:.2f} s, {written() - before} MiB written, "
          f"{int(inside('du -sk restored')[1].split()[0]) >> 10} MiB on the disk; tmpfs counts nothing", flush=True)
    run(NSFERRY, "--quiet", "rm", "restored")
    apt(f"DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends {PACKAGE} >/dev/null && apt-get clean")
    measure(f"apt-get install {PACKAGE}", "tree", key, "at least 5")
    print("\nchanged fraction of the content, by directories")
    for percent in 1, 5, 20, 100:
        run(NSFERRY, "--quiet", "rm", "tree")
        copy("tree")
        key = based("tree")
        change("tree", percent / 100, False)
        measure(f"{percent} %", "tree", key)
    print("\nsize of the tree, nothing changed")
    for part in "usr/share/doc", "usr/lib/python3", "usr":
        name = "part-" + part.replace("/", "-")
        inside(f"mkdir space/{name} && cp -a tree/{part} space/{name}/")
        measure(part, f"space/{name}", based(f"space/{name}"))
        run(NSFERRY, "--quiet", "rm", f"space/{name}")
    run(NSFERRY, "--quiet", "rm", "tree")


main()
