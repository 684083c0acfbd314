"""Talking avatar: one pass of its chain.

Random numbers: the original draws everything from one stream: the noise of a pass, and in a pass that continues another
one a draw for the latents handed on before the first step and after each. The stream goes on from pass to pass, so each
takes the state in which the one before left it (`RandomState`), and snapshots hold it too.

A pass that continues another one does not change its first latents: they are put in again, as noisy as the others,
before the first step and after each one.

Guidance, off in the released models, is on the text, on the sound, or on both:

    text only    v = v_negative + g · (v − v_negative)
    sound only   v = v_silent + g_audio · (v − v_silent)
    both         v = v_neither + g · (v − v_negative) + g_audio · (v_negative − v_neither)

with v from (prompt, sound), v_negative from (negative prompt, sound), v_silent from (prompt, zero features) and
v_neither from (negative prompt, zero features).
"""

from __future__ import annotations

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
from components.dit.avatar import IMAGE_ROWS, AvatarDiT
from components.euler import FlowEuler
from components.known import MASK_CHANNELS
from components.sampler import TRAIN_TIMESTEPS
from components.vae import STRIDE_T
from components.values import (
    AudioWindow,
    ImageTokens,
    KnownFrames,
    RandomState,
    Regions,
    TextContext,
    Value,
)

CONNECTION_PROMPT = "A person is talking to the camera."
"""What every pass but the first is told, whatever the user's prompt says: that one has shaped the key frames."""


@dataclass(frozen=True, slots=True)
class AvatarSpec(DenoiseSpec):
    """`guidance` is that of the text."""

    guidance_audio: float = 1.0


class AvatarTask:
    """See `Task`."""

    ports: Mapping[str, type[Value]] = {
        "context": TextContext,
        "audio": AudioWindow,
        "image": ImageTokens,
        "condition": KnownFrames,
        "regions": Regions,
        "random": RandomState,
    }

    def __init__(self, dit: AvatarDiT) -> None:
        """Adopts a DiT."""
        self._dit = dit
        self.weights = dit.weights

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release. CheckpointMismatch, Unsupported."""
        return cls(AvatarDiT.load(root, placement, attention))

    @property
    def model(self) -> Any:
        return self._dit.model

    @property
    def device(self) -> torch.device:
        return self._dit.device

    def sampler(self, spec: DenoiseSpec) -> FlowEuler:
        return FlowEuler(spec.steps, spec.flow_shift)

    def begin(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> Start:
        """Takes up the stream of random numbers, draws the noise and puts the latents handed on into it."""
        context, audio = pick(inputs, "context", TextContext), pick(inputs, "audio", AudioWindow)
        image, condition = pick(inputs, "image", ImageTokens), pick(inputs, "condition", KnownFrames)
        regions, random = pick(inputs, "regions", Regions), pick(inputs, "random", RandomState)
        guidance_audio = spec.guidance_audio if isinstance(spec, AvatarSpec) else 1.0
        self._refuse_misfit(spec, context, audio, image, condition, regions)
        if random.state.numel():
            generator.set_state(random.state.cpu())
        shape = (self._dit.channels, spec.latent_frames, *spec.latent_size)
        noise_BCTHW = torch.randn(shape, generator=generator)[None]
        flow = AvatarFlow(
            dit=self._dit,
            known_BCTHW=condition.known_BCTHW.to(self.device, torch.float32),
            motion_BCKHW=condition.motion_BCKHW.to(self.device, torch.float32),
            context=TextContext(context.prompt_BLD.to(self.device), context.negative_BLD.to(self.device)),
            image_BID=image.tokens_BID.to(self.device),
            heard_PFWNE=audio.heard_PFWNE.to(self.device),
            regions_RYX=regions.masks_RYX if regions.masks_RYX.shape[0] else None,
            guidance=spec.guidance,
            guidance_audio=guidance_audio,
            generator=generator,
        )
        first_timestep = self.sampler(spec).timesteps[0]
        return Start(flow.settle(noise_BCTHW.to(self.device), first_timestep), flow)

    def _refuse_misfit(
        self,
        spec: DenoiseSpec,
        context: TextContext,
        audio: AudioWindow,
        image: ImageTokens,
        condition: KnownFrames,
        regions: Regions,
    ) -> None:
        refuse_text_of_another_width(context, self._dit.text_dim)
        if spec.guided and not context.negative_BLD.shape[1]:
            raise ValueError("guidance above 1 needs the negative prompt's context")
        size = (spec.latent_frames, *spec.latent_size)
        if condition.known_BCTHW.shape != (1, MASK_CHANNELS + self._dit.channels, *size):
            raise ValueError(
                f"a condition of shape {tuple(condition.known_BCTHW.shape)} does not fit {spec.latent_frames} latent "
                f"frames of {spec.height} × {spec.width}"
            )
        if image.tokens_BID.shape[1] != IMAGE_ROWS:
            raise ValueError(f"the image has {image.tokens_BID.shape[1]} rows where {IMAGE_ROWS} are needed")
        speakers, frames = audio.heard_PFWNE.shape[:2]
        if frames != STRIDE_T * (spec.latent_frames - 1) + 1:
            raise ValueError(f"{frames} frames of sound do not fit {spec.latent_frames} latent frames")
        if not 1 <= speakers <= 2 or (speakers == 2) != bool(regions.masks_RYX.shape[0]):
            raise ValueError(f"{speakers} speakers do not fit {regions.masks_RYX.shape[0]} masks; two need three")


@dataclass(frozen=True, slots=True)
class AvatarFlow(Flow):
    """See `Flow`."""

    dit: AvatarDiT
    known_BCTHW: torch.Tensor
    motion_BCKHW: torch.Tensor
    context: TextContext
    image_BID: torch.Tensor
    heard_PFWNE: torch.Tensor
    regions_RYX: torch.Tensor | None
    guidance: float
    guidance_audio: float
    generator: torch.Generator  # the run's own

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: float, branches: Branches) -> torch.Tensor:
        def forward(context_BLD: torch.Tensor, heard_PFWNE: torch.Tensor) -> torch.Tensor:
            # Without sound nobody speaks, so there is nothing to tell apart.
            regions_RYX = self.regions_RYX if heard_PFWNE.shape[0] > 1 else None
            return self.dit.forward(
                latents_BCTHW, self.known_BCTHW, timestep, context_BLD, self.image_BID, heard_PFWNE, regions_RYX
            )

        prompt_BLD, negative_BLD, heard = self.context.prompt_BLD, self.context.negative_BLD, self.heard_PFWNE
        whole, negative = partial(forward, prompt_BLD, heard), partial(forward, negative_BLD, heard)
        # Silence is one speaker's whatever there are, as in the original.
        silent = torch.zeros_like(heard[-1:])
        by_text, by_sound = self.guidance > 1, self.guidance_audio > 1
        if by_text and by_sound:
            v, v_negative, v_neither = branches([whole, negative, partial(forward, negative_BLD, silent)])
            return v_neither + self.guidance * (v - v_negative) + self.guidance_audio * (v_negative - v_neither)
        if by_text:
            v, v_negative = branches([whole, negative])
            return v_negative + self.guidance * (v - v_negative)
        if by_sound:
            v, v_silent = branches([whole, partial(forward, prompt_BLD, silent)])
            return v_silent + self.guidance_audio * (v - v_silent)
        (v,) = branches([whole])
        return v

    def settle(self, latents_BCTHW: torch.Tensor, timestep: float) -> torch.Tensor:
        held = self.motion_BCKHW.shape[2]
        if not held:
            return latents_BCTHW
        noise_BCKHW = torch.randn(self.motion_BCKHW.shape[1:], generator=self.generator)[None].to(latents_BCTHW)
        sigma = timestep / TRAIN_TIMESTEPS
        again_BCKHW = (1 - sigma) * self.motion_BCKHW + sigma * noise_BCKHW
        return torch.cat([again_BCKHW, latents_BCTHW[:, :, held:]], dim=2)
