"""Which family of the denoiser each kind of graph runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from components.denoiser import (
    AvatarTask,
    ExtensionTask,
    HunyuanImageTask,
    HunyuanTask,
    ReferenceTask,
    ShotTask,
    Task,
)
from components.device import Placement

TASKS: Mapping[str, Callable[[Path, Placement, str], Task]] = {
    "r2v": ReferenceTask.load,
    "extend": ExtensionTask.load,
    "shot": ShotTask.load,
    "avatar": AvatarTask.load,
    "v1-t2v": HunyuanTask.load,
    "v1-i2v": HunyuanImageTask.load,
}
