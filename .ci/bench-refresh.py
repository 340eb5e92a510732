"""bench-refresh.py NSFERRY ROUNDS: sstate restore --refresh beside removing a tree and tar --zstd -xp, in alternating runs.

Works on rootfs.tar in the current directory, and leaves only that behind. Prints ratios of medians, and the cost against the part of the
files that has changed. Neither side syncs.
"""

import os
import statistics
import subprocess
import sys
import time

NSFERRY, ROUNDS = sys.argv[1], int(sys.argv[2])
PACKAGE = "vim-runtime"  # mid-size: some 2,000 files, 33 MB
os.environ["XDG_CACHE_HOME"] = os.path.abspath("cache")


def run(*argv):
    begin = time.monotonic()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def inside(script):
    """script as inner root in a namespace like that of nsferry's own halves."""
    return run(NSFERRY, "run", "--", "sh", "-ec", script)


def refresh(key):
    return run(NSFERRY, "--quiet", "sstate", "restore", "--refresh", key, "tree")


def tar(key):
    """What is done without nsferry."""
    return inside(f"rm -rf peer; mkdir peer; tar --zstd -xp --numeric-owner --xattrs --xattrs-include='*' --acls -f {key}.tar.zst -C peer")


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


def main():
    run(NSFERRY, "--quiet", "unpack", "rootfs.tar", "tree")
    run(NSFERRY, "--quiet", "sstate", "save", "with", "tree")
    # The state before the package was installed: its files are not there, and dpkg does not know it.
    inside(f"cd tree; grep -v '^/\\.$' var/lib/dpkg/info/{PACKAGE}.list | while read -r f; do [ -d \".$f\" ] || rm -f \".$f\"; done; "
           f"rm -f var/lib/dpkg/info/{PACKAGE}.*; sed -i '/^Package: {PACKAGE}$/,/^$/d' var/lib/dpkg/status")
    run(NSFERRY, "--quiet", "sstate", "save", "without", "tree")
    run("zstd", "-q", "-3", "-T0", "rootfs.tar", "-o", "with.tar.zst")
    settle("with")
    duel("unchanged", lambda: None, lambda: refresh("with"), lambda: tar("with"))
    duel(f"a package is installed ({PACKAGE})", lambda: settle("without"), lambda: refresh("with"), lambda: tar("with"))
    for percent in (1, 5, 20, 100):
        def change():
            settle("with")
            inside(CHANGE.format(nth=100 // percent))
        duel(f"{percent} % of the files have other content", change, lambda: refresh("with"), lambda: tar("with"))
    duel("all of the tree, no index", lambda: subprocess.run(["rm", "-rf", "cache/nsferry/index"], check=True), lambda: refresh("with"), lambda: tar("with"))
    for name in ("tree", "peer"):
        run(NSFERRY, "--quiet", "rm", "--force", name)
    subprocess.run(["rm", "-rf", "cache", "with.tar.zst"], check=True)


main()
