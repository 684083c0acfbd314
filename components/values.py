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
class PooledContext(Value):
    """What the Hunyuan DiT attends to of the prompt, without padding, and the prompt as one vector."""

    kind: ClassVar[str] = "PooledContext"
    prompt_BLD: torch.Tensor  # [1, 1 … 256, text_dim], bf16 on GPU, fp32 on CPU
    pooled_BE: torch.Tensor  # [1, pooled_dim]
    negative_BLD: torch.Tensor  # as the prompt's, or [1, 0, text_dim] when guidance is 1 and it is never used
    negative_pooled_BE: torch.Tensor  # zeros then


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
class FirstFrame(Value):
    """The VAE's posterior of the picture that a video begins with, normalised; independent of the seed."""

    kind: ClassVar[str] = "FirstFrame"
    mean_BCHW: torch.Tensor  # [1, 16, H, W] fp32
    std_BCHW: torch.Tensor  # the same


@dataclass(frozen=True, slots=True)
class PrefixCondition(Value):
    """What a video is continued from: the mean of the VAE's posterior of its last frames, normalised."""

    kind: ClassVar[str] = "PrefixCondition"
    latents_BCTHW: torch.Tensor  # [1, 16, K, H, W] fp32


@dataclass(frozen=True, slots=True)
class EndsCondition(Value):
    """What is known of a chunk's frames: latents at its beginning and behind its end, normalised; perhaps none."""

    kind: ClassVar[str] = "EndsCondition"
    first_BCKHW: torch.Tensor  # [1, 16, K, H, W] fp32
    last_BCKHW: torch.Tensor  # the same with another K


@dataclass(frozen=True, slots=True)
class Frames(Value):
    """Pixels handed from one part of a chain to the next."""

    kind: ClassVar[str] = "Frames"
    frames_FYXC: torch.Tensor  # [F, Y, X, 3] uint8, RGB


@dataclass(frozen=True, slots=True)
class AudioFeatures(Value):
    """What every layer of the audio encoder makes of whole clips, 25 frames per second, one clip per speaker."""

    kind: ClassVar[str] = "AudioFeatures"
    features_PFNE: torch.Tensor  # [speakers, frames, layers, width] fp32


@dataclass(frozen=True, slots=True)
class AudioWindow(Value):
    """What is heard at each frame of one pass: the frame's own features and its neighbours'."""

    kind: ClassVar[str] = "AudioWindow"
    heard_PFWNE: torch.Tensor  # [speakers, frames, 5, layers, width] fp32


@dataclass(frozen=True, slots=True)
class ImageTokens(Value):
    """An image as the image encoder sees it."""

    kind: ClassVar[str] = "ImageTokens"
    tokens_BID: torch.Tensor  # [1, 257, 1280], bf16 on GPU, fp32 on CPU


@dataclass(frozen=True, slots=True)
class KnownFrames(Value):
    """What one pass knows of its frames beforehand, as DiT channels, and the latents that it holds fixed."""

    kind: ClassVar[str] = "KnownFrames"
    known_BCTHW: torch.Tensor  # [1, 4 + 16, T, H, W] fp32: mask by pixel frame, then normalised latents
    motion_BCKHW: torch.Tensor  # [1, 16, K, H, W] fp32: of the frames handed on; K is 0 where none were


@dataclass(frozen=True, slots=True)
class Pixels(Value):
    """Frames between parts of a chain at the precision they were made with."""

    kind: ClassVar[str] = "Pixels"
    pixels_CFYX: torch.Tensor  # [3, F, Y, X] fp32 in [-1, 1]


@dataclass(frozen=True, slots=True)
class Regions(Value):
    """Where two speakers and the background are in the source image."""

    kind: ClassVar[str] = "Regions"
    masks_RYX: torch.Tensor  # [3, Y, X], above 0 inside; [0, 1, 1] for one speaker

    @classmethod
    def none(cls) -> Self:
        """Of one speaker."""
        return cls(torch.zeros((0, 1, 1), dtype=torch.uint8))


@dataclass(frozen=True, slots=True)
class RandomState(Value):
    """Where a request's stream of random numbers stands between two parts of a chain."""

    kind: ClassVar[str] = "RandomState"
    state: torch.Tensor  # uint8, a CPU generator's; empty at the stream's beginning

    @classmethod
    def fresh(cls) -> Self:
        """The beginning; the seed comes with the request."""
        return cls(torch.zeros(0, dtype=torch.uint8))

    @classmethod
    def of(cls, generator: torch.Generator) -> Self:
        """Where a generator stands now."""
        return cls(generator.get_state())


@dataclass(frozen=True, slots=True)
class PromptText(Value):
    """A text on its way to the text encoder."""

    kind: ClassVar[str] = "PromptText"
    utf8_N: torch.Tensor  # uint8

    @classmethod
    def of(cls, text: str) -> Self:
        """The value of a text."""
        return cls(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else torch.empty(0).byte())

    @property
    def text(self) -> str:
        return bytes(self.utf8_N.tolist()).decode()


VALUE_TYPES: Mapping[str, type[Value]] = {
    kind.kind: kind
    for kind in (
        TextContext,
        PooledContext,
        Condition,
        FirstFrame,
        Latents,
        PrefixCondition,
        EndsCondition,
        Frames,
        AudioFeatures,
        AudioWindow,
        ImageTokens,
        KnownFrames,
        Pixels,
        Regions,
        RandomState,
        PromptText,
    )
}
