from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from cluster.store.mounts import Mount, mount_of, network_mount, parse_mounts

TABLE = """\
sysfs /sys sysfs rw,nosuid 0 0
/dev/vda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2,addr=10.0.0.1 0 0
/dev/vdb /home/build xfs rw 0 0
tmpfs /tmp tmpfs rw 0 0
//nas/my\\040files /mnt/my\\040files cifs rw 0 0
overlay /srv overlay rw 0 0
server:/srv /srv nfs rw 0 0
user@host: /mnt/ssh fuse.sshfs rw 0 0
fuse-overlayfs /var/lib/c fuse.fuse-overlayfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "point", "network"),
    [
        ("/var/lib/skyreels/jobs.db", "/", False),
        ("/home/me/jobs.db", "/home", True),
        ("/home/build/jobs.db", "/home/build", False),
        ("/homestead/jobs.db", "/", False),  # not below /home
        ("/mnt/my files/jobs.db", "/mnt/my files", True),
        ("/srv/jobs.db", "/srv", True),  # mounted over the overlay
        ("/mnt/ssh/jobs.db", "/mnt/ssh", True),
        ("/var/lib/c/jobs.db", "/var/lib/c", False),
    ],
)
def test_the_longest_and_last_mount_decides(path: str, point: str, network: bool) -> None:
    mount = mount_of(PurePosixPath(path), parse_mounts(TABLE))
    assert mount is not None
    assert (mount.point, mount.network) == (point, network)


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse.s3fs", "lustre", "ceph", "9p", "fuse"]
)
def test_network_kinds(kind: str) -> None:
    assert Mount("/x", kind).network


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk"])
def test_local_kinds(kind: str) -> None:
    assert not Mount("/x", kind).network


def test_nothing_mounted_decides_nothing() -> None:
    assert mount_of(PurePosixPath("/x"), parse_mounts("garbage\n\n")) is None


def test_a_path_that_does_not_exist_yet_is_judged_by_its_parents(tmp_path: Path) -> None:
    assert network_mount(tmp_path / "a" / "b" / "jobs.db") == network_mount(tmp_path)
