"""Seeded weights for toy models: every parameter from its own stream, so one layer's size does not move another's."""

from __future__ import annotations

import hashlib
import math

import torch


@torch.no_grad()
def fill(module: torch.nn.Module, seed: int) -> None:
    """Gives a module built on the meta device seeded values, in place.

    Matrices and kernels are normal with variance 1 / fan-in, gains near one, biases near zero: activations neither
    vanish nor saturate, whatever the depth.
    """
    module.to_empty(device="cpu")
    for name, tensor in module.named_parameters():
        key = hashlib.sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
        leaf = name.rpartition(".")[2]
        noise = torch.randn(tensor.shape, generator=generator)
        if leaf == "gamma" or (leaf == "weight" and tensor.ndim == 1):
            tensor.copy_(1 + 0.05 * noise)
        elif leaf == "bias":
            tensor.copy_(0.05 * noise)
        elif leaf == "scale_shift_table":
            tensor.copy_(noise / math.sqrt(tensor.shape[-1]))
        else:
            tensor.copy_(noise / math.sqrt(tensor[0].numel()))
