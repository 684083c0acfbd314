"""What safetensors files hold, from their headers alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.checkpoints.source import read_config
from components.errors import CheckpointMismatch

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_STEMS = ("diffusion_pytorch_model", "model")  # diffusers' and transformers' file names
_MAX_HEADER_NBYTES = 100 * 2**20  # the format's own limit


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as its file's header describes it. `start` and `stop` are absolute byte offsets."""

    file: Path
    name: str  # as stored
    dtype: str  # the format's name: "F32"
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(file: Path) -> dict[str, Entry]:
    """Every tensor of one safetensors file, without reading any data.

    Raises:
        CheckpointMismatch: the file is missing, not of that format, or shorter than its header says.
    """
    try:
        nbytes = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(nbytes - 8, _MAX_HEADER_NBYTES):
                raise ValueError("header length out of range")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        base = 8 + length
        entries = {
            name: Entry(
                file, name, row["dtype"], tuple(row["shape"]), *(base + offset for offset in row["data_offsets"])
            )
            for name, row in header.items()
        }
    except OSError as error:
        raise CheckpointMismatch(f"{file} cannot be read; the checkpoint is incomplete ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointMismatch(f"{file} is not a safetensors file; fetch the checkpoint again.") from error
    if any(entry.stop > nbytes for entry in entries.values()):
        raise CheckpointMismatch(f"{file} is shorter than its header says; fetch the checkpoint again.")
    return entries


def list_tensors(folder: Path) -> dict[str, Entry]:
    """Every tensor of a component's folder: one file, or shards, which an index may place.

    Files under the libraries' names come first; a folder without such holds its weights in whatever safetensors files
    are there.

    Raises:
        CheckpointMismatch: no weights there, a shard is missing, or the index and the shards disagree.
    """
    for stem in _STEMS:
        index = folder / f"{stem}.safetensors.index.json"
        if index.is_file():
            return _from_index(index)
        single = folder / f"{stem}.safetensors"
        if single.is_file():
            return read_header(single)
    if indices := sorted(folder.glob("*.safetensors.index.json")):
        return _from_index(indices[0])
    if files := sorted(folder.glob("*.safetensors")):
        return _from_files(files)
    expected = " or ".join(f"{stem}.safetensors" for stem in _STEMS)
    raise CheckpointMismatch(f"{folder} holds no weights; expected {expected}, or their index and shards.")


def _from_files(files: Sequence[Path]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for file in files:
        for name, entry in read_header(file).items():
            if name in entries:
                raise CheckpointMismatch(f"{file} and {entries[name].file.name} both hold {name!r}; keep one of them.")
            entries[name] = entry
    return entries


def _from_index(index: Path) -> dict[str, Entry]:
    placed = read_config(index).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise CheckpointMismatch(f"{index} has no usable weight_map; fetch the checkpoint again.")
    entries: dict[str, Entry] = {}
    for shard in sorted(set(placed.values())):
        for name, entry in read_header(index.parent / shard).items():
            if placed.get(name) != shard:
                raise CheckpointMismatch(f"{shard} holds {name!r}, which {index.name} does not place there.")
            entries[name] = entry
    if absent := sorted(set(placed) - set(entries)):
        raise CheckpointMismatch(f"{index.parent}: {absent[0]!r} is named by {index.name} but in no shard.")
    return entries
