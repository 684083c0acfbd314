"""Names a component's weights by content, cheaply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from components.checkpoints.headers import list_tensors
from components.checkpoints.source import read_config
from components.errors import CheckpointMismatch

_SAMPLE_NBYTES = 4096
_SAMPLES = 1024  # of a large file
_WHOLE_NBYTES = 32 * 2**20  # a file up to this size is read whole


def fingerprint(folder: Path) -> str:
    """A digest of a component's folder, 32 hex digits, from a few MB of reading however large the weights are.

    It covers the configuration (without "_…" bookkeeping), and of every tensor its name, dtype, shape and up to 4 KiB
    from its head and from its tail. It does not depend on the path, file times or how the weights are sharded.

    It tells apart other architectures, dtypes, and weights that were trained, merged or quantised further, since those
    touch every tensor. It does not notice a change confined to the unread middle of tensors: it proves identity of
    releases, not the absence of bit rot.

    Raises:
        CheckpointMismatch: the configuration or the weights are missing or unreadable.
    """
    config = {name: value for name, value in read_config(folder / "config.json").items() if not name.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, entry in sorted(list_tensors(folder).items()):
        digest.update(f"\n{name} {entry.dtype} {entry.shape}\n".encode())
        with entry.file.open("rb") as stream:
            stream.seek(entry.start)
            digest.update(stream.read(min(_SAMPLE_NBYTES, entry.stop - entry.start)))
            stream.seek(max(entry.start, entry.stop - _SAMPLE_NBYTES))
            digest.update(stream.read(min(_SAMPLE_NBYTES, entry.stop - entry.start)))
    return digest.hexdigest()[:32]


def sample(paths: Iterable[Path]) -> str:
    """A digest of files, and of all files of folders, 32 hex digits, whatever their format.

    It covers names, sizes and content: all of a file up to 32 MiB, of a larger one 1024 pieces of 4 KiB spread evenly
    from its head to its tail. Weights that were trained further differ nearly everywhere; a change between the pieces
    of a large file alone is not noticed. Other sharding of the same weights gives another digest.

    Raises:
        CheckpointMismatch: a file cannot be read, or there is none.
    """
    digest = hashlib.sha256()
    files = [(path, file) for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    try:
        for path, file in files:
            if file.is_dir():
                continue
            nbytes = file.stat().st_size
            digest.update(f"\n{path.name} {file.relative_to(path)} {nbytes}\n".encode())
            with file.open("rb") as stream:
                if nbytes <= _WHOLE_NBYTES:
                    digest.update(stream.read())
                    continue
                for piece in range(_SAMPLES):
                    stream.seek((nbytes - _SAMPLE_NBYTES) * piece // (_SAMPLES - 1))
                    digest.update(stream.read(_SAMPLE_NBYTES))
    except OSError as error:
        raise CheckpointMismatch(f"{error.filename} cannot be read; the checkpoint is incomplete.") from error
    if not files:
        raise CheckpointMismatch("The checkpoint holds none of a component's files.")
    return digest.hexdigest()[:32]
