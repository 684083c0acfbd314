"""Reference-to-video.

Random numbers: the video noise, then one draw per reference image. `guidance` above 1 turns on the three-branch form

    v = v_uncond + g_image · (v_negative − v_uncond) + g · (v_text − v_negative)

with v_text from (prompt, references), v_negative from (negative prompt, references) and v_uncond from (negative
prompt, zero references). The released checkpoints are distilled: guidance 1, one evaluation per step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from components.branches import Branches
from components.denoiser.spec import DenoiseSpec
from components.denoiser.task import Flow, Start, pick, refuse_text_of_another_width
from components.device import Placement
from components.dit import REFERENCE_SLOTS, ReferenceDiT
from components.sampler import FlowUniPC
from components.vae import LatentScale
from components.values import Condition, TextContext, Value


class ReferenceTask:
    """See `Task`."""

    ports: Mapping[str, type[Value]] = {"context": TextContext, "condition": Condition}

    def __init__(self, dit: ReferenceDiT, scale: LatentScale) -> None:
        """Wraps a DiT.

        Args:
            dit: adopted.
            scale: that of the VAE whose latents the DiT was trained on.
        """
        self._dit = dit
        self._scale = scale
        self.weights = hashlib.sha256(repr((dit.weights, scale.mean, scale.std)).encode()).hexdigest()[:32]

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release: the DiT's weights and, of the VAE, only its scale. CheckpointMismatch, Unsupported."""
        return cls(ReferenceDiT.load(root, placement, attention), LatentScale.load(root))

    @property
    def model(self) -> Any:
        return self._dit.model

    @property
    def device(self) -> torch.device:
        return self._dit.device

    def sampler(self, spec: DenoiseSpec) -> FlowUniPC:
        return FlowUniPC(spec.steps, spec.flow_shift)

    def begin(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> Start:
        """Takes the context (of the negative prompt too when guided) and the posteriors of up to 4 reference images
        at the video's size.
        """
        context, condition = pick(inputs, "context", TextContext), pick(inputs, "condition", Condition)
        self._refuse_misfit(spec, context, condition)
        noise_BCTHW = torch.randn((1, self._dit.channels, spec.latent_frames, *spec.latent_size), generator=generator)
        references_BCKHW = self._draw_references(condition, generator, spec.latent_size)
        flow = ReferenceFlow(
            dit=self._dit,
            references_BCKHW=references_BCKHW.to(self.device),
            context=TextContext(context.prompt_BLD.to(self.device), context.negative_BLD.to(self.device)),
            spec=spec,
        )
        return Start(noise_BCTHW.to(self.device), flow)

    def _draw_references(self, condition: Condition, generator: torch.Generator, size: tuple[int, int]) -> torch.Tensor:
        """One sample from each image's posterior, in order, normalised, and zeros up to REFERENCE_SLOTS."""
        references_BCKHW = torch.zeros((1, self._dit.channels, REFERENCE_SLOTS, *size))
        posteriors = zip(condition.mean_KCHW.float().cpu(), condition.logvar_KCHW.float().cpu(), strict=True)
        for slot, (mean_CHW, logvar_CHW) in enumerate(posteriors):
            noise_BCTHW = torch.randn((1, self._dit.channels, 1, *size), generator=generator)
            sample_BCTHW = mean_CHW[None, :, None] + torch.exp(0.5 * logvar_CHW[None, :, None]) * noise_BCTHW
            references_BCKHW[:, :, slot : slot + 1] = self._scale.normalise(sample_BCTHW)
        return references_BCKHW

    def _refuse_misfit(self, spec: DenoiseSpec, context: TextContext, condition: Condition) -> None:
        refuse_text_of_another_width(context, self._dit.text_dim)
        if spec.guided and not context.negative_BLD.shape[1]:
            raise ValueError("guidance above 1 needs the negative prompt's context")
        count, *shape = condition.mean_KCHW.shape
        if count > REFERENCE_SLOTS or condition.logvar_KCHW.shape != condition.mean_KCHW.shape:
            raise ValueError(f"a condition has up to {REFERENCE_SLOTS} means and as many log-variances, not {count}")
        if shape != [self._dit.channels, *spec.latent_size]:
            raise ValueError(f"references of shape {shape} do not fit a video of {spec.height} × {spec.width}")


@dataclass(frozen=True, slots=True)
class ReferenceFlow(Flow):
    """See `Flow`."""

    dit: ReferenceDiT
    references_BCKHW: torch.Tensor  # fp32, normalised, zero in unused slots
    context: TextContext
    spec: DenoiseSpec

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: float, branches: Branches) -> torch.Tensor:
        timestep_B = torch.tensor([timestep])

        def forward(references_BCKHW: torch.Tensor, context_BLD: torch.Tensor) -> torch.Tensor:
            return self.dit.forward(latents_BCTHW, references_BCKHW, timestep_B, context_BLD)

        text = partial(forward, self.references_BCKHW, self.context.prompt_BLD)
        if not self.spec.guided:
            (text_BCTHW,) = branches([text])
            return text_BCTHW
        negative = partial(forward, self.references_BCKHW, self.context.negative_BLD)
        uncond = partial(forward, torch.zeros_like(self.references_BCKHW), self.context.negative_BLD)
        text_BCTHW, negative_BCTHW, uncond_BCTHW = branches([text, negative, uncond])
        toward_images = self.spec.guidance_image * (negative_BCTHW - uncond_BCTHW)
        return uncond_BCTHW + toward_images + self.spec.guidance * (text_BCTHW - negative_BCTHW)
