"""The denoising loop of reference-to-video, one step at a time.

A Denoiser owns the DiT and all randomness; a Run is one video on its way. Runs share nothing that changes, so they may
be interleaved step by step. Given equal inputs every process computes the same run, which lets a group of ranks hold
whole latents each and draw nothing from each other.

Random numbers come from one CPU generator per run, seeded by the request, in the original's order: the video noise,
then one draw per reference image. `guidance` above 1 turns on the three-branch form

    v = v_uncond + g_image · (v_negative − v_uncond) + g · (v_text − v_negative)

with v_text from (prompt, references), v_negative from (negative prompt, references) and v_uncond from (negative
prompt, zero references). The released checkpoints are distilled: guidance 1, one evaluation per step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from components.branches import Branches, in_turn
from components.device import Placement
from components.dit import REFERENCE_SLOTS, ReferenceDiT
from components.errors import NonFiniteLatents, SnapshotMismatch
from components.sampler import FlowUniPC, SamplerState
from components.snapshot import Snapshot
from components.vae import STRIDE_S, LatentScale
from components.values import Condition, Latents, TextContext

__all__ = ["DenoiseSpec", "Denoiser", "Run", "Snapshot"]

SNAPSHOT_FORMAT = 1
_SIDE = 16  # pixels per token: VAE stride × patch
_SAMPLER_PREFIX = "sampler."


@dataclass(frozen=True, slots=True)
class DenoiseSpec:
    """The numbers of one run. Height and width are the video's, in pixels.

    Raises:
        ValueError: a size or count is out of range.
    """

    height: int
    width: int
    latent_frames: int
    steps: int
    seed: int
    flow_shift: float = 5.0
    guidance: float = 1.0
    guidance_image: float = 1.0

    def __post_init__(self) -> None:
        if self.height < _SIDE or self.width < _SIDE or self.height % _SIDE or self.width % _SIDE:
            raise ValueError(f"height and width must be multiples of {_SIDE}, not {self.height} × {self.width}")
        if self.latent_frames < 1 or self.steps < 1:
            raise ValueError("latent_frames and steps must be at least 1")

    @property
    def guided(self) -> bool:
        return self.guidance > 1

    @property
    def latent_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height // STRIDE_S, self.width // STRIDE_S


@dataclass(slots=True)
class Run:
    """One video between noise and finished latents. Made by a Denoiser and changed by its `step` only."""

    spec: DenoiseSpec
    latents_BCTHW: torch.Tensor  # fp32
    references_BCKHW: torch.Tensor  # fp32, normalised, zero in unused slots
    context: TextContext
    sampler: FlowUniPC
    generator: torch.Generator
    inputs: Mapping[str, str]  # digests of context and condition

    @property
    def step(self) -> int:
        """Steps done."""
        return self.sampler.position

    @property
    def done(self) -> bool:
        return self.step >= self.spec.steps


class Denoiser:
    """Runs the sampler over the DiT. Holds weights and no run."""

    def __init__(self, dit: ReferenceDiT, scale: LatentScale, branches: Branches = in_turn) -> None:
        """Wraps a DiT.

        Args:
            dit: adopted.
            scale: that of the VAE whose latents the DiT was trained on.
            branches: how the evaluations of one step are carried out; may be exchanged between steps.
        """
        self._dit = dit
        self._scale = scale
        self.branches = branches
        self.weights = hashlib.sha256(repr((dit.weights, scale.mean, scale.std)).encode()).hexdigest()[:32]

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release: the DiT's weights and, of the VAE, only its scale. CheckpointMismatch, Unsupported."""
        return cls(ReferenceDiT.load(root, placement, attention), LatentScale.load(root))

    def begin(self, spec: DenoiseSpec, context: TextContext, condition: Condition) -> Run:
        """Draws the noise and the references.

        Args:
            spec: sizes, steps, seed, guidance.
            context: the prompt; the negative prompt too when `spec.guided`.
            condition: posteriors of up to 4 reference images at the video's size.

        Raises:
            ValueError: context or condition do not fit the DiT or the spec.
        """
        self._refuse_misfit(spec, context, condition)
        height, width = spec.latent_size
        generator = torch.Generator("cpu").manual_seed(spec.seed)
        noise_BCTHW = torch.randn((1, self._dit.channels, spec.latent_frames, height, width), generator=generator)
        references_BCKHW = self._draw_references(condition, generator, (height, width))
        return Run(
            spec=spec,
            latents_BCTHW=noise_BCTHW.to(self._dit.device),
            references_BCKHW=references_BCKHW.to(self._dit.device),
            context=TextContext(context.prompt_BLD.to(self._dit.device), context.negative_BLD.to(self._dit.device)),
            sampler=FlowUniPC(spec.steps, spec.flow_shift),
            generator=generator,
            inputs={"context": _digest(context.tensors()), "condition": _digest(condition.tensors())},
        )

    def step(self, run: Run) -> None:
        """Advances a run by one step.

        Raises:
            NonFiniteLatents: the result has NaN or Inf; the run cannot continue, others can.
            ValueError: the run is done.
        """
        if run.done:
            raise ValueError(f"all {run.spec.steps} steps of this run are done")
        velocity_BCTHW = self._velocity(run)
        latents_BCTHW = run.sampler.step(velocity_BCTHW, run.latents_BCTHW)
        if not bool(torch.isfinite(latents_BCTHW).all()):
            raise NonFiniteLatents(f"The latents became NaN or Inf in step {run.step} of {run.spec.steps}.")
        run.latents_BCTHW = latents_BCTHW

    def finish(self, run: Run) -> Latents:
        """The finished latents. ValueError before the last step."""
        if not run.done:
            raise ValueError(f"only {run.step} of {run.spec.steps} steps are done")
        return Latents(video_BCTHW=run.latents_BCTHW)

    def snapshot(self, run: Run) -> Snapshot:
        """The run between two steps, copied to CPU: `restore` continues it in any process with the same weights."""
        state = run.sampler.state()
        tensors = {"latents": run.latents_BCTHW, "generator": run.generator.get_state()}
        tensors |= {_SAMPLER_PREFIX + name: tensor for name, tensor in state.tensors.items()}
        meta = self._identity(run.spec, run.inputs) | {"step": run.step, "counters": dict(state.counters)}
        return Snapshot({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, meta)

    def restore(self, snapshot: Snapshot, spec: DenoiseSpec, context: TextContext, condition: Condition) -> Run:
        """Continues a run; on the same kind of device the rest is bit-identical.

        The references are drawn again rather than stored: same seed, same order, same values.

        Raises:
            SnapshotMismatch: it was taken with other weights, another solver, spec or inputs, or in another format.
            ValueError: context or condition do not fit the DiT or the spec.
        """
        run = self.begin(spec, context, condition)
        for field, expected in self._identity(spec, run.inputs).items():
            if (found := snapshot.meta.get(field)) != expected:
                raise SnapshotMismatch(f"The snapshot has {field} {found!r} where this run has {expected!r}.")
        tensors = snapshot.tensors
        try:
            latents_BCTHW, generator_state = tensors["latents"], tensors["generator"]
            state = SamplerState(
                {
                    name.removeprefix(_SAMPLER_PREFIX): tensors[name]
                    for name in tensors
                    if name.startswith(_SAMPLER_PREFIX)
                },
                snapshot.meta["counters"],
            )
            run.sampler.restore(state, self._dit.device)
        except KeyError as error:
            raise SnapshotMismatch(f"The snapshot lacks {error}; start the run again.") from error
        if latents_BCTHW.shape != run.latents_BCTHW.shape:
            raise SnapshotMismatch(
                f"The snapshot has latents {tuple(latents_BCTHW.shape)} where this run has "
                f"{tuple(run.latents_BCTHW.shape)}."
            )
        run.latents_BCTHW = latents_BCTHW.to(self._dit.device)
        run.generator.set_state(generator_state)
        return run

    def _identity(self, spec: DenoiseSpec, inputs: Mapping[str, str]) -> dict[str, Any]:
        """What must agree between a snapshot and the run that continues it, field by field."""
        numbers = {f"spec.{name}": value for name, value in asdict(spec).items()}
        return {"format": SNAPSHOT_FORMAT, "weights": self.weights, "solver": FlowUniPC.name, **numbers, **inputs}

    def _draw_references(self, condition: Condition, generator: torch.Generator, size: tuple[int, int]) -> torch.Tensor:
        """One sample from each image's posterior, in order, normalised, and zeros up to REFERENCE_SLOTS."""
        references_BCKHW = torch.zeros((1, self._dit.channels, REFERENCE_SLOTS, *size))
        posteriors = zip(condition.mean_KCHW.float().cpu(), condition.logvar_KCHW.float().cpu(), strict=True)
        for slot, (mean_CHW, logvar_CHW) in enumerate(posteriors):
            noise_BCTHW = torch.randn((1, self._dit.channels, 1, *size), generator=generator)
            sample_BCTHW = mean_CHW[None, :, None] + torch.exp(0.5 * logvar_CHW[None, :, None]) * noise_BCTHW
            references_BCKHW[:, :, slot : slot + 1] = self._scale.normalise(sample_BCTHW)
        return references_BCKHW

    def _velocity(self, run: Run) -> torch.Tensor:
        references_BCKHW, context = run.references_BCKHW, run.context
        timestep_B = torch.tensor([run.sampler.timesteps[run.step]])

        def forward(references_BCKHW: torch.Tensor, context_BLD: torch.Tensor) -> torch.Tensor:
            return self._dit.forward(run.latents_BCTHW, references_BCKHW, timestep_B, context_BLD)

        text = partial(forward, references_BCKHW, context.prompt_BLD)
        if not run.spec.guided:
            (text_BCTHW,) = self.branches([text])
            return text_BCTHW
        negative = partial(forward, references_BCKHW, context.negative_BLD)
        uncond = partial(forward, torch.zeros_like(references_BCKHW), context.negative_BLD)
        text_BCTHW, negative_BCTHW, uncond_BCTHW = self.branches([text, negative, uncond])
        toward_images = run.spec.guidance_image * (negative_BCTHW - uncond_BCTHW)
        return uncond_BCTHW + toward_images + run.spec.guidance * (text_BCTHW - negative_BCTHW)

    def _refuse_misfit(self, spec: DenoiseSpec, context: TextContext, condition: Condition) -> None:
        if context.prompt_BLD.shape[-1] != self._dit.text_dim:
            raise ValueError(
                f"the context is {context.prompt_BLD.shape[-1]} wide but the DiT takes {self._dit.text_dim}"
            )
        if spec.guided and not context.negative_BLD.shape[1]:
            raise ValueError("guidance above 1 needs the negative prompt's context")
        count, *shape = condition.mean_KCHW.shape
        if count > REFERENCE_SLOTS or condition.logvar_KCHW.shape != condition.mean_KCHW.shape:
            raise ValueError(f"a condition has up to {REFERENCE_SLOTS} means and as many log-variances, not {count}")
        if shape != [self._dit.channels, *spec.latent_size]:
            raise ValueError(f"references of shape {shape} do not fit a video of {spec.height} × {spec.width}")


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, 32 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
