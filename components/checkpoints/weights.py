"""Strict loading: every key of the model from disk, no key of the disk unused, every shape as declared.

The module is built on the meta device, so nothing is allocated or initialised twice. Tensors come memory-mapped out
of the safetensors files: on CPU in their stored dtype they stay mapped (processes share the pages), elsewhere each
one is converted on its way to the device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from components.checkpoints.source import read_config
from components.errors import CheckpointMismatch

_STEMS = ("diffusion_pytorch_model", "model")  # diffusers' and transformers' file names
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
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
    """Every tensor of a component's folder: one file, or the shards that its index names.

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
    expected = " or ".join(f"{stem}.safetensors" for stem in _STEMS)
    raise CheckpointMismatch(f"{folder} holds no weights; expected {expected}, or their index and shards.")


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
        raise CheckpointMismatch(f"{index.parent}: {_first(absent)} is named by {index.name} but in no shard.")
    return entries


def load_strict(
    module: torch.nn.Module,
    folder: Path,
    *,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    tied: Mapping[str, str] | None = None,
) -> None:
    """Fills a module built on the meta device, in place, and sets it to evaluation mode.

    Args:
        module: any module; buffers outside its state dict must be real already.
        folder: a component's folder of a checkpoint.
        device: where the parameters go.
        dtype_of: parameter name → the dtype it is kept in.
        tied: alias → canonical name of parameters that are one tensor. Files may store either name or both.

    Raises:
        CheckpointMismatch: a key is missing, unexpected, mis-shaped or not a float; the message names the first
            of each sort and counts the others.
    """
    entries = _untie(list_tensors(folder), tied or {}, folder)
    _check(module, entries, tied or {}, folder)
    stored: dict[Path, list[str]] = {}
    for name, entry in entries.items():
        stored.setdefault(entry.file, []).append(name)
    for file, names in sorted(stored.items()):
        with safe_open(file, framework="pt", device="cpu") as source:
            for name in names:
                tensor = source.get_tensor(entries[name].name).to(device, dtype_of(name))
                _place(module, name, tensor)
    for alias, name in (tied or {}).items():
        owner, leaf = _owner(module, alias)
        setattr(owner, leaf, module.get_parameter(name))
    module.eval()


def _untie(entries: dict[str, Entry], tied: Mapping[str, str], folder: Path) -> dict[str, Entry]:
    """The entries under canonical names only."""
    untied = dict(entries)
    for alias, name in tied.items():
        entry = untied.pop(alias, None)
        if entry is None:
            continue
        if name in untied and not torch.equal(_read(entry), _read(untied[name])):
            raise CheckpointMismatch(f"{folder}: {alias!r} and {name!r} differ but must be one tensor.")
        untied.setdefault(name, entry)
    return untied


def _check(module: torch.nn.Module, entries: Mapping[str, Entry], tied: Mapping[str, str], folder: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in tied}
    problems = []
    if missing := sorted(set(expected) - set(entries)):
        problems.append(f"missing {_first(missing)}")
    if unexpected := sorted(set(entries) - set(expected)):
        problems.append(f"unexpected {_first(unexpected)}")
    common = sorted(set(expected) & set(entries))
    if misshaped := [name for name in common if entries[name].shape != expected[name]]:
        name = misshaped[0]
        problems.append(f"{_first(misshaped)} of shape {entries[name].shape} where the model has {expected[name]}")
    if unusable := [name for name in common if entries[name].dtype not in _FLOATS]:
        problems.append(f"{_first(unusable)} of dtype {entries[unusable[0]].dtype} where a float is needed")
    if problems:
        raise CheckpointMismatch(f"{folder} does not fit {type(module).__name__}: {'; '.join(problems)}.")


def _first(names: Sequence[str]) -> str:
    """Names the first and counts the rest."""
    return f"{names[0]!r}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def _read(entry: Entry) -> torch.Tensor:
    with safe_open(entry.file, framework="pt", device="cpu") as source:
        tensor: torch.Tensor = source.get_tensor(entry.name)
    return tensor


def _owner(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _place(module: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Replaces a meta tensor by a real one under the same name."""
    owner, leaf = _owner(module, name)
    is_parameter = leaf in dict(owner.named_parameters(recurse=False))
    setattr(owner, leaf, torch.nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)
