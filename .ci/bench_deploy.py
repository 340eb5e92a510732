"""bench_deploy.py NSFERRY ROUNDS: deploy beside what builders do today, in the current directory; called by .ci/bench."""

import os
import statistics
import subprocess
import sys
import time

NSFERRY, ROUNDS = sys.argv[1], int(sys.argv[2])
SPARSE = int(os.environ.get("BENCH_SPARSE", "4"))  # GiB of the sparse image; cat writes all of it, which 16 GiB of memory may not hold
MIB, GIB = 1 << 20, 1 << 30


def once(argv):
    begin = time.monotonic()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - begin


def sh(script):
    return ["sh", "-ec", script]


def make():
    """The images, made inside: one of data alone, one of SPARSE GiB with 1 % data. Returns whether the filesystem has reflinks."""
    os.mkdir("out")
    os.mkdir("build")
    subprocess.run([NSFERRY, "--quiet", "grant", "--traverse", "build"], check=True)
    script = f"""
import os, random
block = random.Random(1).randbytes(8 << 20)
with open("build/dense.img", "wb") as f:
    for i in range(128):
        f.write(i.to_bytes(8, "big") + block[8:])
with open("build/sparse.img", "wb") as f:
    f.truncate({SPARSE * GIB})
    for i in range({SPARSE * 10}):
        f.seek(i * {102 * MIB - 4096})
        f.write(block[:{MIB}])
for n in ("build/dense.img", "build/sparse.img"):
    os.chmod(n, 0o644)
"""
    subprocess.run([NSFERRY, "run", "--", "python3", "-c", script], check=True)
    os.sync()
    return subprocess.run(["cp", "--reflink=always", "build/sparse.img", "out/probe"], stderr=subprocess.DEVNULL).returncode == 0


def duel(title, contenders, wanted):
    times = {name: [] for name in contenders}
    for i in range(ROUNDS):
        names = list(contenders)
        for name in names if i % 2 == 0 else reversed(names):
            subprocess.run("rm -f out/*", shell=True, check=True)
            subprocess.run([NSFERRY, "--quiet", "rm", "-f", "build/staged"], check=True)
            os.sync()
            times[name].append(once(contenders[name]))
    ours = statistics.median(times["nsferry deploy"])
    print(f"\n{title}; wanted: {wanted}", flush=True)
    for name, t in times.items():
        m = statistics.median(t)
        print(f"  {name:34} {m:7.3f} s  (best {min(t):.3f}, worst {max(t):.3f})  {m / ours:6.2f} x ours")
    return ours


def main():
    os.umask(0o022)
    reflink = make()
    run = f"{NSFERRY} run --"
    for name, size in ("dense", 1), ("sparse", SPARSE):
        image = f"build/{name}.img"
        limit = f"reflink: at most {20 + size} ms" if reflink else "cp at least 1.0 x ours" + (", cat at least 5 x ours" if name == "sparse" else "")
        duel(f"deploy of the {name} image, {size} GiB", {
            "nsferry deploy": [NSFERRY, "--quiet", "deploy", "--from", "build", f"{name}.img", "out/img"],
            "cp --sparse=always": sh(f"cp --sparse=always {image} out/img"),
            "cp --sparse=always; sync": sh(f"cp --sparse=always {image} out/img && sync out/img out"),
            "seed 1: staged inside, copied out": sh(f"{run} cp --sparse=always {image} build/staged && cp --sparse=always build/staged out/img"),
            "seed 2: cat to a redirect": sh(f"{run} cat {image} >out/img"),
        }, limit)
    duel("deploy of the dense image, with its digest", {
        "nsferry deploy": [NSFERRY, "--quiet", "deploy", "--sha256", "--from", "build", "dense.img", "out/img"],
        "cp; sync; sha256sum": sh("cp --sparse=always build/dense.img out/img && sync out/img && cd out && sha256sum img >img.sha256"),
    }, "at least 1.0")
    subprocess.run([NSFERRY, "--quiet", "rm", "build"], check=True)


main()
