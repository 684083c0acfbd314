"""Strict loading: every key of the model from disk, no key of the disk unused, every shape as declared.

The module is built on the meta device, so nothing is allocated or initialised twice. Tensors come memory-mapped out
of the files: on CPU in their stored dtype they stay mapped (processes share the pages), elsewhere each one is converted
on its way to the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from components.checkpoints.headers import FLOATS, Entry, list_tensors
from components.checkpoints.pickled import PTH, describe, read_pth
from components.errors import CheckpointMismatch


def load_strict(
    module: torch.nn.Module,
    source: Path,
    *,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    tied: Mapping[str, str] | None = None,
    stored_as: Callable[[str], str] = str,
) -> None:
    """Fills a module built on the meta device, in place, and sets it to evaluation mode.

    Args:
        module: any module; buffers outside its state dict must be real already.
        source: a component's folder of a checkpoint, with safetensors; or a `.pth` file.
        device: where the parameters go.
        dtype_of: parameter name → the dtype it is kept in.
        tied: alias → canonical name of parameters that are one tensor. Files may store either name or both.
        stored_as: parameter name → its name in the files.

    Raises:
        CheckpointMismatch: a key is missing, unexpected, mis-shaped or not a float; the message names the first
            of each sort, as it is stored, and counts the others.
    """
    if source.suffix == PTH:
        tensors = read_pth(source)
        fill_strict(module, tensors, source, device=device, dtype_of=dtype_of, tied=tied, stored_as=stored_as)
        return
    entries = check_strict(module, source, tied=tied, stored_as=stored_as)
    _fill(module, _mapped(entries), device, dtype_of, tied or {}, stored_as)


def check_strict(
    module: torch.nn.Module,
    source: Path,
    *,
    tied: Mapping[str, str] | None = None,
    stored_as: Callable[[str], str] = str,
) -> dict[str, Entry]:
    """Refuses what `load_strict` refuses, from headers alone; the entries by stored name. CheckpointMismatch."""
    if source.suffix == PTH:
        entries = describe(source, read_pth(source))
    else:
        aliases = {stored_as(alias): stored_as(name) for alias, name in (tied or {}).items()}
        entries = _untie(list_tensors(source), aliases, source)
    check_entries(module, entries, source, tied=tied, stored_as=stored_as)
    return entries


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a component's folder, memory-mapped, on CPU. CheckpointMismatch as `list_tensors`."""
    return dict(_mapped(list_tensors(folder)))


def fill_strict(
    module: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    source: Path,
    *,
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    tied: Mapping[str, str] | None = None,
    stored_as: Callable[[str], str] = str,
) -> None:
    """The same from tensors by stored name, for files that must be rearranged first; `source` is for messages."""
    check_entries(module, describe(source, tensors), source, tied=tied, stored_as=stored_as)
    _fill(module, tensors.items(), device, dtype_of, tied or {}, stored_as)


def _fill(
    module: torch.nn.Module,
    pairs: Iterable[tuple[str, torch.Tensor]],
    device: torch.device,
    dtype_of: Callable[[str], torch.dtype],
    tied: Mapping[str, str],
    stored_as: Callable[[str], str],
) -> None:
    names = {stored_as(name): name for name in module.state_dict() if name not in tied}
    for stored, tensor in pairs:
        name = names[stored]
        _place(module, name, tensor.to(device, dtype_of(name)))
    for alias, name in tied.items():
        owner, leaf = _owner(module, alias)
        setattr(owner, leaf, module.get_parameter(name))
    module.eval()


def _mapped(entries: Mapping[str, Entry]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor, file by file, memory-mapped."""
    stored: dict[Path, list[str]] = {}
    for name, entry in entries.items():
        stored.setdefault(entry.file, []).append(name)
    for file, names in sorted(stored.items()):
        with safe_open(file, framework="pt", device="cpu") as source:
            for name in names:
                yield name, source.get_tensor(entries[name].name)


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


def check_entries(
    module: torch.nn.Module,
    entries: Mapping[str, Entry],
    source: Path,
    *,
    tied: Mapping[str, str] | None = None,
    stored_as: Callable[[str], str] = str,
) -> None:
    """Compares the state of a module, on the meta device or not, with what files hold. CheckpointMismatch."""
    expected = {
        stored_as(name): tuple(tensor.shape) for name, tensor in module.state_dict().items() if name not in (tied or {})
    }
    problems = []
    if missing := sorted(set(expected) - set(entries)):
        problems.append(f"missing {_first(missing)}")
    if unexpected := sorted(set(entries) - set(expected)):
        problems.append(f"unexpected {_first(unexpected)}")
    common = sorted(set(expected) & set(entries))
    if misshaped := [name for name in common if entries[name].shape != expected[name]]:
        name = misshaped[0]
        problems.append(f"{_first(misshaped)} of shape {entries[name].shape} where the model has {expected[name]}")
    if unusable := [name for name in common if entries[name].dtype not in FLOATS]:
        problems.append(f"{_first(unusable)} of dtype {entries[unusable[0]].dtype} where a float is needed")
    if problems:
        raise CheckpointMismatch(f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}.")


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
