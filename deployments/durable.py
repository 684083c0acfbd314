"""Local files that are either whole and on disk, or not there.

A write goes to a temporary file beside its destination, is synced, renamed over it, and the folder is synced: after
`write` returns, a power cut loses nothing; before, readers see the old file or none. The writer holds a lock on its
temporary file for as long as it lives (the kernel drops it with the process), so a sweep can tell a dead writer's
leavings from a live one's work without trusting process ids.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

TEMP_PREFIX = ".tmp-"


def write(path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Writes the chunks to `path`, making its folders; returns (nbytes, sha256 as hex).

    Raises:
        OSError: the disk is full, the folder is not writable …; nothing is left behind then.
    """
    _make_folders(path.parent)
    temp = path.parent / f"{TEMP_PREFIX}{uuid.uuid4().hex}"
    digest = hashlib.sha256()
    nbytes = 0
    try:
        with temp.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                nbytes += len(chunk)
            file.flush()
            os.fsync(file.fileno())
            temp.replace(path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return nbytes, digest.hexdigest()


def sweep(root: Path, *, min_age_s: float) -> int:
    """Removes temporary files under `root` whose writers are dead; returns how many.

    `min_age_s` covers the moment between a file's creation and its lock.

    Raises:
        OSError: a file cannot be removed.
    """
    removed = 0
    newest = time.time() - min_age_s
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if name.startswith(TEMP_PREFIX) and _abandoned(path, newest):
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def _abandoned(temp: Path, newest: float) -> bool:
    try:
        with temp.open("rb") as file:
            if os.fstat(file.fileno()).st_mtime > newest:
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):  # finished meanwhile, or alive
        return False
    return True


def _make_folders(folder: Path) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
