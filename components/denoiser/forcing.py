"""Diffusion forcing: one chunk of a video of any length, given the frames that are known of it.

Known frames stand at the beginning (a start image, or the end of what comes before) and at the end (an end image). The
model sees the ones at the beginning with a little noise, at the timestep of that noise, and the ones at the end clean.

Random numbers: the noise of all frames but those at the end, then in every iteration that of the known frames at the
beginning. All numbers of a request are one stream, which goes on from chunk to chunk (`RandomState`). (The original
draws the noise of known frames from the process's generator, so nothing reproduces it there.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from components.branches import Branches
from components.denoiser.guidance import guided, refuse_missing_negative
from components.denoiser.spec import DenoiseSpec
from components.denoiser.task import Flow, Start, pick, refuse_text_of_another_width
from components.device import Placement
from components.dit.v2 import ForcingDiT
from components.forcing import ForcingUniPC, Schedule, schedule
from components.sampler import TRAIN_TIMESTEPS, FlowUniPC
from components.values import EndsCondition, Latents, RandomState, TextContext, Value


@dataclass(frozen=True, slots=True)
class ForcingSpec(DenoiseSpec):
    """`latent_frames` are those of the chunk's video, known ones at its beginning included, an end image not."""

    fps: int = 24
    lag: int = 0  # iterations between the starts of neighbouring blocks
    block: int = 1  # latent frames of a block; above 1 blocks see only what comes before them
    known_timestep: int = 0  # of the known frames at the beginning
    known: int = 0  # how many latent frames there are at the beginning
    held: int = 0  # and at the end
    window: int | None = None  # latent frames that the model sees at once; None = all


class ForcingTask:
    """See `Task`."""

    ports: Mapping[str, type[Value]] = {"context": TextContext, "condition": EndsCondition, "random": RandomState}

    def __init__(self, dit: ForcingDiT) -> None:
        """Adopts a DiT."""
        self._dit = dit
        self.weights = dit.weights

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release. CheckpointMismatch, Unsupported."""
        return cls(ForcingDiT.load(root, placement, attention))

    @property
    def model(self) -> Any:
        return self._dit.model

    @property
    def device(self) -> torch.device:
        return self._dit.device

    def sampler(self, spec: DenoiseSpec) -> ForcingUniPC:
        return ForcingUniPC(spec.steps, spec.flow_shift, planned(_forcing(spec)))

    def begin(self, spec: DenoiseSpec, inputs: Mapping[str, Value], generator: torch.Generator) -> Start:
        """Takes up the stream of random numbers, draws the noise and puts the known frames in."""
        spec = _forcing(spec)
        context, ends = pick(inputs, "context", TextContext), pick(inputs, "condition", EndsCondition)
        random = pick(inputs, "random", RandomState)
        refuse_text_of_another_width(context, self._dit.text_dim)
        refuse_missing_negative(spec, context)
        for rows_BCKHW, count in ((ends.first_BCKHW, spec.known), (ends.last_BCKHW, spec.held)):
            if rows_BCKHW.shape != (1, self._dit.channels, count, *spec.latent_size):
                raise ValueError(
                    f"known frames of shape {tuple(rows_BCKHW.shape)} do not fit {count} latent frames of "
                    f"{spec.height} × {spec.width}"
                )
        if random.state.numel():
            generator.set_state(random.state.cpu())
        shape = (1, self._dit.channels, spec.latent_frames, *spec.latent_size)
        latents_BCTHW = torch.randn(shape, generator=generator)
        latents_BCTHW[:, :, : spec.known] = ends.first_BCKHW.float().cpu()
        latents_BCTHW = torch.cat([latents_BCTHW, ends.last_BCKHW.float().cpu()], dim=2)
        flow = ForcingFlow(
            dit=self._dit,
            context=TextContext(context.prompt_BLD.to(self.device), context.negative_BLD.to(self.device)),
            spec=spec,
            plan=planned(spec),
            generator=generator,
        )
        return Start(latents_BCTHW.to(self.device), flow)


@dataclass(frozen=True, slots=True)
class ForcingFlow(Flow):
    """See `Flow`; what the sampler gives for a timestep is the iteration."""

    dit: ForcingDiT
    context: TextContext
    spec: ForcingSpec
    plan: Schedule
    generator: torch.Generator  # the run's own

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: float, branches: Branches) -> torch.Tensor:
        iteration, spec = int(timestep), self.spec
        start, stop = self.plan.windows[iteration]
        seen_BCTHW = latents_BCTHW[:, :, start:stop].clone()
        times = list(self.plan.timesteps[iteration][start:stop])
        if spec.known_timestep and (noisy := spec.known - start) > 0:
            known_BCKHW = seen_BCTHW[:, :, :noisy]
            noise_BCKHW = torch.randn(known_BCKHW.shape, generator=self.generator).to(known_BCKHW)
            share = spec.known_timestep / TRAIN_TIMESTEPS
            seen_BCTHW[:, :, :noisy] = known_BCKHW * (1 - share) + noise_BCKHW * share
            times[:noisy] = [spec.known_timestep] * noisy

        def forward(context_BLD: torch.Tensor) -> torch.Tensor:
            return self.dit.forward(seen_BCTHW, times, context_BLD, block_frames=spec.block, fps=spec.fps)

        velocity_BCTHW = torch.zeros_like(latents_BCTHW)
        velocity_BCTHW[:, :, start:stop] = guided(
            branches,
            spec.guidance,
            lambda: forward(self.context.prompt_BLD),
            lambda: forward(self.context.negative_BLD),
        )
        return velocity_BCTHW

    def result(self, latents_BCTHW: torch.Tensor) -> Latents:
        return Latents(video_BCTHW=latents_BCTHW[:, :, : self.spec.latent_frames])


def planned(spec: ForcingSpec) -> Schedule:
    """The schedule of a chunk. ValueError when its numbers do not fit."""
    return schedule(
        FlowUniPC(spec.steps, spec.flow_shift).timesteps,
        spec.latent_frames + spec.held,
        lag=spec.lag,
        block=spec.block,
        ready=spec.known,
        held=spec.held,
        window=spec.window,
    )


def _forcing(spec: DenoiseSpec) -> ForcingSpec:
    if not isinstance(spec, ForcingSpec):
        raise ValueError("diffusion forcing needs the numbers of a ForcingSpec")
    return spec
