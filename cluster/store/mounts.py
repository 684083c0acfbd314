"""Which kind of file system a path lies on.

SQLite's write-ahead log needs shared memory and POSIX locks between processes of one host; a network file system
gives neither reliably, and the damage shows only later.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NETWORK = frozenset(
    {
        "9p", "afs", "afpfs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gfs2", "gpfs", "lustre", "ncpfs", "nfs",
        "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "weka", "wekafs",
    }
)  # fmt: skip
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.overlayfs", "fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.ext2", "fuse.ntfs-3g"})
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table."""

    point: str
    kind: str

    @property
    def network(self) -> bool:
        """Whether it may be shared between hosts. An unknown FUSE file system counts as such: most of them are."""
        fuse = self.kind == "fuse" or self.kind.startswith("fuse.")
        return self.kind in _NETWORK or (fuse and self.kind not in _LOCAL_FUSE)


def parse_mounts(text: str) -> list[Mount]:
    """The mount table from the text of `/proc/self/mounts`, where blanks in names are octal escapes."""
    rows = (line.split() for line in text.splitlines())
    return [Mount(_OCTAL.sub(lambda m: chr(int(m[1], 8)), row[1]), row[2]) for row in rows if len(row) >= 3]


def mount_of(path: PurePosixPath, mounts: list[Mount]) -> Mount | None:
    """The mount that holds an absolute path without links: the longest; of equals the last, which hides the others."""
    best: Mount | None = None
    for mount in mounts:
        longer = best is None or len(mount.point) >= len(best.point)
        if longer and path.is_relative_to(mount.point):
            best = mount
    return best


def network_mount(path: Path) -> Mount | None:
    """The network mount that holds the path (which need not exist), or None when it is local or cannot be told."""
    table = Path("/proc/self/mounts")
    if not table.exists():
        return None
    mount = mount_of(PurePosixPath(path.resolve()), parse_mounts(table.read_text(encoding="utf-8", errors="replace")))
    return mount if mount is not None and mount.network else None
