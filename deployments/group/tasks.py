"""Which family of the denoiser each kind of graph runs, and the numbers of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from cluster.chains import ends, new_latents
from cluster.records import Request
from cluster.registry import MODELS
from components.denoiser import (
    AvatarTask,
    DenoiseSpec,
    ExtensionTask,
    ForcingSpec,
    ForcingTask,
    HunyuanImageTask,
    HunyuanTask,
    ImageTask,
    ReferenceTask,
    ShotTask,
    Task,
    TextTask,
)
from components.device import Placement

TASKS: Mapping[str, Callable[[Path, Placement, str], Task]] = {
    "r2v": ReferenceTask.load,
    "extend": ExtensionTask.load,
    "shot": ShotTask.load,
    "avatar": AvatarTask.load,
    "t2v": TextTask.load,
    "i2v": ImageTask.load,
    "df": ForcingTask.load,
    "v1-t2v": HunyuanTask.load,
    "v1-i2v": HunyuanImageTask.load,
}


def spec_of(request: Request, chunk: int, result: int, flow_shift: float) -> DenoiseSpec:
    """The numbers of a chunk's run. ValueError."""
    spec = DenoiseSpec(
        height=request.height,
        width=request.width,
        latent_frames=new_latents(request, chunk),
        steps=request.steps,
        seed=request.seed_of(result),
        flow_shift=flow_shift,
        guidance=request.guidance,
        guidance_image=request.guidance_image,
    )
    if MODELS[request.model].graph != "df":
        return spec
    known, held = ends(request, chunk)
    return ForcingSpec(
        **asdict(spec),
        fps=request.fps,
        lag=request.forcing.ar_step,
        block=request.forcing.causal_block_size,
        known_timestep=request.forcing.addnoise_condition,
        known=known,
        held=held,
    )
