"""place.py DIR UID [UIDMAP GIDMAP] -- COMMAND...: runs COMMAND in a mount namespace where DIR/etc is /etc, and where the other files of DIR lie
over those of the same path in the system. With maps ("INSIDE OUTSIDE COUNT ..."), it is in a user and a pid namespace with
these, made by newuidmap and newgidmap and as user and group UID, as a container engine makes them. Python, because nobody may suspect nsferry
of having made the place, and util-linux unshare is not to be seen in the record of what was executed."""
import ctypes
import os
import pathlib
import subprocess
import sys

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000
BIND, REC, PRIVATE = 0x1000, 0x4000, 0x40000
libc = ctypes.CDLL(None, use_errno=True)


def must(code):
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source, target, kind, flags):
    must(libc.mount(str(source).encode(), str(target).encode(), kind, flags, None))


def mapped(maps):
    """A user namespace with maps, in which the calling process is root: its parent, which stays outside, has them written."""
    pid, ready, written = os.getpid(), os.pipe(), os.pipe()
    if os.fork() == 0:
        os.read(ready[0], 1)
        os.close(written[0])
        for tool, lines in zip(("newuidmap", "newgidmap"), maps):
            subprocess.run([tool, str(pid), *lines.split()], check=True)
        os.write(written[1], b".")
        os._exit(0)
    os.close(written[1])
    must(libc.unshare(NEWUSER | NEWNS | NEWPID | NEWIPC | NEWUTS))
    os.write(ready[1], b".")
    if os.read(written[0], 1) != b".":
        sys.exit("place: no maps")
    os.wait()
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])


def waited():
    """Forks; in the parent waits for the child, and whatever is left to it, and exits with the child's status."""
    child = os.fork()
    while child:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 255)


def main():
    end = sys.argv.index("--")
    over, uid, maps, command = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:end], sys.argv[end + 1:]
    if maps:
        mapped(maps)
        waited()  # the next is pid 1
        waited()
    else:
        must(libc.unshare(NEWNS))
    mount("none", "/", None, REC | PRIVATE)
    # Of /etc not file by file: a file that useradd replaces outside takes the mount on it away everywhere.
    for source in [over / "etc", *(f for f in over.glob("usr/**/*") if f.is_file())]:
        mount(source, pathlib.Path("/") / source.relative_to(over), None, BIND)
    if maps:
        mount("proc", "/proc", b"proc", 0)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.execvp(command[0], command)


main()
