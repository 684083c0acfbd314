"""Where a component computes, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch

from components.errors import Unsupported

VAE_DTYPE = torch.float32
"""The VAE's precision on every device: bf16 shows as banding in flat areas."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A device and the dtype of the transformers on it (the VAE ignores the dtype, see VAE_DTYPE)."""

    device: torch.device
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.device.type} {str(self.dtype).removeprefix('torch.')}"

    @property
    def host(self) -> Self:
        """The same precision in host memory."""
        return replace(self, device=torch.device("cpu"))

    @classmethod
    def of(cls, device: str | torch.device) -> Self:
        """The usual precision for a device: bf16 on GPU, fp32 on CPU.

        Raises:
            Unsupported: the device does not exist here.
        """
        place = torch.device(device)
        if place.type == "cuda" and not torch.cuda.is_available():
            raise Unsupported(f"Device {device} is not usable here because torch finds no CUDA device; choose 'cpu'.")
        return cls(place, torch.float32 if place.type == "cpu" else torch.bfloat16)
