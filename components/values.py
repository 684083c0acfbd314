"""What flows between stages. Values hold tensors and no ids; records of the job plane never appear here.

Shape letters: B batch, L text rows, D width, C channels, T latent frames, F pixel frames, H/W latent height/width
(pixels ÷ 8), K references, Y/X pixel height/width.

Values are read-only by agreement: a stage that must change a tensor clones it first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import torch


@dataclass(frozen=True, slots=True)
class Value:
    """A named bundle of tensors, the same on disk and in memory."""

    kind: ClassVar[str]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by field name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> Self:
        """The inverse of `tensors`; raises TypeError on a missing or unexpected name."""
        return cls(**tensors)


@dataclass(frozen=True, slots=True)
class TextContext(Value):
    """What the DiT attends to of the prompt: UMT5 rows, zero beyond the prompt's length, all rows kept."""

    kind: ClassVar[str] = "TextContext"
    prompt_BLD: torch.Tensor  # [1, 512, text_dim], bf16 on GPU, fp32 on CPU
    negative_BLD: torch.Tensor  # the same, or [1, 0, text_dim] when guidance is 1 and it is never used


@dataclass(frozen=True, slots=True)
class Condition(Value):
    """The VAE posterior of each reference image, normalised later; independent of the seed."""

    kind: ClassVar[str] = "Condition"
    mean_KCHW: torch.Tensor  # fp32
    logvar_KCHW: torch.Tensor  # fp32


@dataclass(frozen=True, slots=True)
class Latents(Value):
    """Denoised, normalised video latents."""

    kind: ClassVar[str] = "Latents"
    video_BCTHW: torch.Tensor  # [1, 16, T, H, W] fp32


@dataclass(frozen=True, slots=True)
class PrefixCondition(Value):
    """What a video is continued from: the mean of the VAE's posterior of its last frames, normalised."""

    kind: ClassVar[str] = "PrefixCondition"
    latents_BCTHW: torch.Tensor  # [1, 16, K, H, W] fp32


@dataclass(frozen=True, slots=True)
class Frames(Value):
    """Pixels handed from one part of a chain to the next."""

    kind: ClassVar[str] = "Frames"
    frames_FYXC: torch.Tensor  # [F, Y, X, 3] uint8, RGB


VALUE_TYPES: Mapping[str, type[Value]] = {
    kind.kind: kind for kind in (TextContext, Condition, Latents, PrefixCondition, Frames)
}
