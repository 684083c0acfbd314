"""Which family of the denoiser each kind of graph runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from components.denoiser import AvatarTask, ExtensionTask, ReferenceTask, ShotTask, Task
from components.device import Placement

TASKS: Mapping[str, Callable[[Path, Placement, str], Task]] = {
    "r2v": ReferenceTask.load,
    "extend": ExtensionTask.load,
    "shot": ShotTask.load,
    "avatar": AvatarTask.load,
}
