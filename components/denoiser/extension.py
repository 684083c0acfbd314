"""Single-shot extension and shot switching: one roll, given the latents of the frames it continues.

Random numbers: the noise of the new frames. Every roll of a chain starts from the request's seed again, as in the
original, so rolls of one shape start from the same noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from components.branches import Branches
from components.denoiser.spec import DenoiseSpec
from components.denoiser.task import Flow, Start, pick, refuse_text_of_another_width
from components.device import Placement
from components.dit import ExtensionDiT
from components.sampler import FlowUniPC
from components.values import Latents, PrefixCondition, TextContext, Value


class ExtensionTask:
    """See `Task`. The result holds the prefix and the new frames, which are decoded together."""

    ports: Mapping[str, type[Value]] = {"context": TextContext, "condition": PrefixCondition}
    shot: ClassVar[bool] = False

    def __init__(self, dit: ExtensionDiT) -> None:
        """Adopts a DiT."""
        self._dit = dit
        self.weights = dit.weights

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release. CheckpointMismatch, Unsupported."""
        return cls(ExtensionDiT.load(root, placement, attention, shot=cls.shot))

    @property
    def model(self) -> Any:
        return self._dit.model

    @property
    def device(self) -> torch.device:
        return self._dit.device

    def sampler(self, spec: DenoiseSpec) -> FlowUniPC:
        return FlowUniPC(spec.steps, spec.flow_shift)

    def begin(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> Start:
        """Takes the context and the normalised latents of the frames to continue, at the video's size."""
        context, condition = pick(inputs, "context", TextContext), pick(inputs, "condition", PrefixCondition)
        refuse_text_of_another_width(context, self._dit.text_dim)
        if spec.guided:
            raise ValueError("these models are distilled and take no guidance above 1")
        batch, channels, _, *size = condition.latents_BCTHW.shape
        if (batch, channels, *size) != (1, self._dit.channels, *spec.latent_size):
            raise ValueError(
                f"a prefix of shape {tuple(condition.latents_BCTHW.shape)} does not fit a video of {spec.height} × "
                f"{spec.width}"
            )
        shape = (1, self._dit.channels, spec.latent_frames, *spec.latent_size)
        noise_BCTHW = torch.randn(shape, generator=generator)
        flow = ExtensionFlow(
            dit=self._dit,
            source_BCKHW=condition.latents_BCTHW.to(self.device, torch.float32),
            context_BLD=context.prompt_BLD.to(self.device),
            shot=self.shot,
        )
        return Start(noise_BCTHW.to(self.device), flow)


class ShotTask(ExtensionTask):
    """The same with the other checkpoint; the result holds the new frames only, which stand alone."""

    shot = True


@dataclass(frozen=True, slots=True)
class ExtensionFlow(Flow):
    """See `Flow`."""

    dit: ExtensionDiT
    source_BCKHW: torch.Tensor  # fp32, normalised
    context_BLD: torch.Tensor
    shot: bool

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: float, branches: Branches) -> torch.Tensor:
        (velocity_BCTHW,) = branches(
            [lambda: self.dit.forward(latents_BCTHW, self.source_BCKHW, timestep, self.context_BLD)]
        )
        return velocity_BCTHW

    def result(self, latents_BCTHW: torch.Tensor) -> Latents:
        if self.shot:
            return Latents(video_BCTHW=latents_BCTHW)
        return Latents(video_BCTHW=torch.cat([self.source_BCKHW, latents_BCTHW], dim=2))
