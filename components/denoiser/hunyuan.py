"""SkyReels V1: text-to-video, and image-to-video from a first frame.

Random numbers, in the original's order: one sample of the first frame's posterior where there is one, then the noise.
The sample stands in the first latent frame, zeros in the others, and is beside the noisy latents at every step.

Guidance above 1 takes two evaluations:    v = v_negative + g · (v − v_negative)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from components.branches import Branches
from components.denoiser.spec import DenoiseSpec
from components.denoiser.task import Flow, Start, pick
from components.device import Placement
from components.dit.hunyuan import HunyuanDiT
from components.euler import FlowEuler
from components.values import FirstFrame, PooledContext, Value


class HunyuanTask:
    """See `Task`. Text-to-video."""

    ports: Mapping[str, type[Value]] = {"context": PooledContext}
    image: ClassVar[bool] = False

    def __init__(self, dit: HunyuanDiT) -> None:
        """Adopts a DiT."""
        self._dit = dit
        self.weights = dit.weights

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From the DiT's release. CheckpointMismatch, Unsupported."""
        return cls(HunyuanDiT.load(root, placement, attention, image=cls.image))

    @property
    def model(self) -> Any:
        return self._dit.model

    @property
    def device(self) -> torch.device:
        return self._dit.device

    def sampler(self, spec: DenoiseSpec) -> FlowEuler:
        return FlowEuler(spec.steps, spec.flow_shift, to_zero=True)

    def begin(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> Start:
        """Takes the context, of the negative prompt too when guided, and the first frame at the video's size."""
        context = pick(inputs, "context", PooledContext)
        self._refuse_misfit(spec, context)
        known_BCTHW = self._known(spec, inputs, generator)
        shape = (1, self._dit.channels, spec.latent_frames, *spec.latent_size)
        noise_BCTHW = torch.randn(shape, generator=generator)
        moved = PooledContext(**{name: tensor.to(self.device) for name, tensor in context.tensors().items()})
        flow = HunyuanFlow(self._dit, known_BCTHW.to(self.device), moved, spec.guidance)
        return Start(noise_BCTHW.to(self.device), flow)

    def _known(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> torch.Tensor:
        """What stands beside the noisy latents, [1, C or 0, T, H, W] fp32."""
        return torch.zeros((1, 0, spec.latent_frames, *spec.latent_size))

    def _refuse_misfit(self, spec: DenoiseSpec, context: PooledContext) -> None:
        widths = (context.prompt_BLD.shape[-1], context.pooled_BE.shape[-1])
        if widths != (self._dit.text_dim, self._dit.pooled_dim):
            raise ValueError(
                f"the context is {widths[0]} and {widths[1]} wide but the DiT takes {self._dit.text_dim} and "
                f"{self._dit.pooled_dim}"
            )
        if spec.guided and not context.negative_BLD.shape[1]:
            raise ValueError("guidance above 1 needs the negative prompt's context")


class HunyuanImageTask(HunyuanTask):
    """The same from a first frame, with the other checkpoint."""

    ports: Mapping[str, type[Value]] = {"context": PooledContext, "condition": FirstFrame}
    image = True

    def _known(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> torch.Tensor:
        first = pick(inputs, "condition", FirstFrame)
        known_BCTHW = torch.zeros((1, self._dit.channels, spec.latent_frames, *spec.latent_size))
        expected = known_BCTHW[:, :, :1].shape
        mean_BCTHW, std_BCTHW = (tensor.float().cpu().unsqueeze(2) for tensor in (first.mean_BCHW, first.std_BCHW))
        if mean_BCTHW.shape != expected or std_BCTHW.shape != expected:
            raise ValueError(
                f"a first frame of shape {tuple(first.mean_BCHW.shape)} does not fit a video of {spec.height} × "
                f"{spec.width}"
            )
        noise_BCTHW = torch.randn(expected, generator=generator)
        known_BCTHW[:, :, :1] = mean_BCTHW + std_BCTHW * noise_BCTHW
        return known_BCTHW


@dataclass(frozen=True, slots=True)
class HunyuanFlow(Flow):
    """See `Flow`."""

    dit: HunyuanDiT
    known_BCTHW: torch.Tensor  # fp32
    context: PooledContext
    guidance: float

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: float, branches: Branches) -> torch.Tensor:
        hidden_BCTHW = torch.cat([latents_BCTHW, self.known_BCTHW], dim=1)
        context, forward = self.context, partial(self.dit.forward, hidden_BCTHW, timestep)
        text = partial(forward, context.prompt_BLD, context.pooled_BE)
        if not self.guidance > 1:
            (text_BCTHW,) = branches([text])
            return text_BCTHW
        negative = partial(forward, context.negative_BLD, context.negative_pooled_BE)
        text_BCTHW, negative_BCTHW = branches([text, negative])
        return negative_BCTHW + self.guidance * (text_BCTHW - negative_BCTHW)
