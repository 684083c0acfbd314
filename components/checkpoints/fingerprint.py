"""Names a component's weights by content, cheaply."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from components.checkpoints.headers import list_tensors
from components.checkpoints.source import read_config

_SAMPLE_NBYTES = 4096


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
