"""Text- and image-to-video of SkyReels V2: one clip, all frames at one timestep, guided by a negative prompt.

Random numbers: the noise. The image enters as the latents of a clip that begins with it and is grey otherwise, with a
mask, beside the noisy latents; and through the image encoder's rows, to which the blocks attend beside the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from components.branches import Branches
from components.denoiser.guidance import guided, refuse_missing_negative
from components.denoiser.spec import DenoiseSpec
from components.denoiser.task import Flow, Start, pick, refuse_text_of_another_width
from components.device import Placement
from components.dit.avatar import IMAGE_ROWS
from components.dit.v2 import TEXT_ROWS, ClipDiT
from components.errors import CheckpointMismatch
from components.known import MASK_CHANNELS
from components.sampler import FlowUniPC
from components.values import ImageTokens, KnownFrames, TextContext, Value


class TextTask:
    """See `Task`."""

    ports: Mapping[str, type[Value]] = {"context": TextContext}
    sees_image: ClassVar[bool] = False

    def __init__(self, dit: ClipDiT) -> None:
        """Adopts a DiT. CheckpointMismatch when it is the other kind."""
        if dit.sees_image != self.sees_image:
            kinds = ("text-to-video", "image-to-video")
            raise CheckpointMismatch(f"The checkpoint is of {kinds[dit.sees_image]}, not of {kinds[self.sees_image]}.")
        self._dit = dit
        self.weights = dit.weights

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release. CheckpointMismatch, Unsupported."""
        return cls(ClipDiT.load(root, placement, attention))

    @property
    def model(self) -> Any:
        return self._dit.model

    @property
    def device(self) -> torch.device:
        return self._dit.device

    def sampler(self, spec: DenoiseSpec) -> FlowUniPC:
        return FlowUniPC(spec.steps, spec.flow_shift)

    def begin(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> Start:
        """Takes the context, of the negative prompt too when guided; with an image also what is known of the clip."""
        context = pick(inputs, "context", TextContext)
        refuse_text_of_another_width(context, self._dit.text_dim)
        refuse_missing_negative(spec, context)
        size = (spec.latent_frames, *spec.latent_size)
        known_BCTHW = image_BID = None
        if self.sees_image:
            known_BCTHW = pick(inputs, "condition", KnownFrames).known_BCTHW.to(self.device, torch.float32)
            image_BID = pick(inputs, "image", ImageTokens).tokens_BID.to(self.device)
            if known_BCTHW.shape != (1, MASK_CHANNELS + self._dit.channels, *size):
                raise ValueError(
                    f"a condition of shape {tuple(known_BCTHW.shape)} does not fit {spec.latent_frames} latent frames "
                    f"of {spec.height} × {spec.width}"
                )
            if image_BID.shape[1] != IMAGE_ROWS:
                raise ValueError(f"the image has {image_BID.shape[1]} rows where {IMAGE_ROWS} are needed")
            if (rows := context.prompt_BLD.shape[1]) != TEXT_ROWS:
                raise ValueError(f"the text has {rows} rows where {TEXT_ROWS} are needed beside an image")
        noise_BCTHW = torch.randn((1, self._dit.channels, *size), generator=generator)
        flow = ClipFlow(
            dit=self._dit,
            context=TextContext(context.prompt_BLD.to(self.device), context.negative_BLD.to(self.device)),
            guidance=spec.guidance,
            known_BCTHW=known_BCTHW,
            image_BID=image_BID,
        )
        return Start(noise_BCTHW.to(self.device), flow)


class ImageTask(TextTask):
    """The same from a first frame."""

    ports: Mapping[str, type[Value]] = {"context": TextContext, "condition": KnownFrames, "image": ImageTokens}
    sees_image = True


@dataclass(frozen=True, slots=True)
class ClipFlow(Flow):
    """See `Flow`."""

    dit: ClipDiT
    context: TextContext
    guidance: float
    known_BCTHW: torch.Tensor | None
    image_BID: torch.Tensor | None

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: float, branches: Branches) -> torch.Tensor:
        def forward(context_BLD: torch.Tensor) -> torch.Tensor:
            return self.dit.forward(latents_BCTHW, timestep, context_BLD, self.known_BCTHW, self.image_BID)

        prompt_BLD, negative_BLD = self.context.prompt_BLD, self.context.negative_BLD
        return guided(branches, self.guidance, partial(forward, prompt_BLD), partial(forward, negative_BLD))
