"""bench_refresh.py NSFERRY ROUNDS: sstate restore --refresh beside removing a tree and tar --zstd -xp, in alternating runs.

Works on rootfs.tar in the current directory, and leaves only that behind. Prints ratios of medians, and the cost against the part of the
files that has changed. Neither side syncs.
"""

import os
import statistics
import subprocess
import sys
import time

NSFERRY, ROUNDS = sys.argv[1], int(sys.argv[2])
PACKAGE = os.environ.get("BENCH_PACKAGE", "gdb")
os.environ.update(XDG_CACHE_HOME=os.path.abspath("cache"), NSFERRY_STORE=os.path.abspath("store"))


def run(*argv):
    begin = time.monotonic()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def inside(script):
    """script as inner root in a namespace like that of nsferry's own halves."""
    return run(NSFERRY, "run", "--", "sh", "-ec", script)


def refresh(key):
    return run(NSFERRY, "--quiet", "sstate", "restore", "--refresh", key, "tree")


def tar():
    """What is done without nsferry, to get the state with the package."""
    return inside("rm -rf space/peer; mkdir space/peer;"
                  "tar --zstd -xp --numeric-owner --xattrs --xattrs-include='*' --acls -f space/with.tar.zst -C space/peer")


def settle(key):
    """Leaves the tree in the state of key, with an index that knows all of it."""
    refresh(key)
    time.sleep(3.5)
    refresh(key)
    os.sync()


def duel(title, before, ours, peer):
    mine, theirs = [], []
    for _ in range(ROUNDS):
        before()
        mine.append(ours())
        theirs.append(peer())
    a, b = statistics.median(mine), statistics.median(theirs)
    print(f"{title:58} {a * 1000:6.0f} ms (best {min(mine) * 1000:.0f})   rm + tar {b:5.2f} s   {b / a:5.1f} x", flush=True)


CHANGE = """
find tree -type f -size +0 | sort | awk 'NR % {nth} == 0' | tr '\\n' '\\0' | xargs -0r -n 1000 perl -e \
'for (@ARGV) {{ open F, "+<", $_ or die; sysread F, $c, 1; sysseek F, 0, 0; syswrite F, chr(ord($c) ^ 1); close F }}'
"""


def apt(script):
    run(NSFERRY, "--quiet", "run", "--rootfs", "tree", "--apt", "--", "sh", "-ec", script)


def main():
    os.umask(0o022)
    os.makedirs("space", exist_ok=True)
    os.chmod("space", 0o1777)
    run(NSFERRY, "--quiet", "unpack", "rootfs.tar", "tree")
    apt("apt-get -qq update && apt-get clean")  # the lists are not the package's
    run(NSFERRY, "--quiet", "sstate", "save", "without", "tree")
    apt(f"DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends {PACKAGE} >/dev/null && apt-get clean")
    run(NSFERRY, "--quiet", "sstate", "save", "with", "tree")
    inside("mkdir space/peer; tar -C tree --numeric-owner --xattrs --xattrs-include='*' --acls -cf - . | zstd -q -3 -T0 >space/with.tar.zst")
    print("\nsstate restore --refresh beside rm -rf and tar --zstd -xp", flush=True)
    settle("with")
    duel("unchanged; wanted: at least 15", lambda: None, lambda: refresh("with"), tar)
    duel(f"apt-get install {PACKAGE}; wanted: at least 8", lambda: settle("without"), lambda: refresh("with"), tar)
    for percent in (1, 5, 20, 100):
        def change():
            settle("with")
            inside(CHANGE.format(nth=100 // percent))
        duel(f"{percent} % of the files have other content", change, lambda: refresh("with"), tar)
    duel("all of the tree, no index", lambda: subprocess.run(["rm", "-rf", "cache/nsferry/index"], check=True), lambda: refresh("with"), tar)
    inside("rm -rf space/*")
    run(NSFERRY, "--quiet", "rm", "tree")
    subprocess.run(["rm", "-rf", "cache", "store"], check=True)


main()
