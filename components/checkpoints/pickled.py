"""Weights in PyTorch's own format, as the original releases have their text encoders and VAE.

The format is a pickle. It is read with PyTorch's restricted unpickler, which builds tensors and plain containers and
executes nothing, and memory-mapped, so that opening a file of 11 GB reads its table of contents only.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

from components.checkpoints.headers import Entry
from components.errors import CheckpointMismatch

PTH = ".pth"

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def read_pth(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a state dict, memory-mapped, on CPU.

    Raises:
        CheckpointMismatch: the file is missing, damaged, of an older format, or holds anything but tensors by name.
    """
    if not file.is_file():
        raise CheckpointMismatch(f"{file} is missing; the checkpoint is incomplete.")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, KeyError, OSError, pickle.UnpicklingError) as error:
        raise CheckpointMismatch(
            f"{file} is damaged or holds more than weights; fetch the checkpoint again."
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise CheckpointMismatch(f"{file} must hold tensors by name and nothing else.")
    return dict(state)


def describe(file: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Entry]:
    """The same as entries, for comparison with a model; their byte offsets mean nothing."""
    return {
        name: Entry(file, name, _NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), 0, 0)
        for name, tensor in tensors.items()
    }
