"""Denoising, one step at a time: one loop for every model, one task per family.

spec        the numbers of one run
task        what a family brings: its inputs, its sampler, what it draws, how it evaluates
loop        what all have in common: steps, snapshots, the check for NaN, identity
reference   reference-to-video
extension   single-shot extension and shot switching
avatar      talking avatar
clip        text- and image-to-video
forcing     diffusion forcing
guidance    what a negative prompt does, where a step has two evaluations
hunyuan     SkyReels V1
"""

from components.denoiser.avatar import AvatarSpec, AvatarTask
from components.denoiser.clip import ImageTask, TextTask
from components.denoiser.extension import ExtensionTask, ShotTask
from components.denoiser.forcing import ForcingSpec, ForcingTask
from components.denoiser.hunyuan import HunyuanImageTask, HunyuanTask
from components.denoiser.loop import Denoiser, Run, Snapshot
from components.denoiser.reference import ReferenceTask
from components.denoiser.spec import DenoiseSpec
from components.denoiser.task import Flow, Start, Task, pick

__all__ = [
    "AvatarSpec",
    "AvatarTask",
    "DenoiseSpec",
    "Denoiser",
    "ExtensionTask",
    "Flow",
    "ForcingSpec",
    "ForcingTask",
    "HunyuanImageTask",
    "HunyuanTask",
    "ImageTask",
    "ReferenceTask",
    "Run",
    "ShotTask",
    "Snapshot",
    "Start",
    "Task",
    "TextTask",
    "pick",
]
