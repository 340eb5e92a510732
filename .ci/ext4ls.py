"""ext4ls.py IMAGE OFFSET: the inodes of an ext4 filesystem in an image, one line each: mode, uid, gid, size of regular files, path;
sorted. By debugfs, without mounting anything."""
import re
import subprocess
import sys

device = f"{sys.argv[1]}?offset={sys.argv[2]}"
todo, lines = ["/"], []
while todo:
    requests = "".join(f'ls -p "{name}"\n' for name in todo)
    said = subprocess.run(["debugfs", "-f", "-", device], input=requests, text=True, check=True, errors="surrogateescape",
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    listings = re.split(r'^debugfs: ls -p ".*"\n', said, flags=re.M)[1:]
    if len(listings) != len(todo):
        sys.exit(f"debugfs answered {len(listings)} of {len(todo)} requests")
    found = []
    for parent, listing in zip(todo, listings):
        for entry in listing.splitlines():
            fields = entry.split("/")
            if len(fields) < 8:
                continue
            _, inode, mode, uid, gid, name, size = fields[:7]
            if name in ("..",) or (name == "." and parent != "/") or inode == "0":
                continue
            path = parent if name == "." else parent.rstrip("/") + "/" + name
            lines.append(f"{mode} {uid} {gid} {size if mode.startswith('10') else '-'} {path}")
            if mode.startswith("04") and name != ".":
                found.append(path)
    todo = found
print("\n".join(sorted(lines, key=lambda line: line.split(" ", 4)[4])))
