"""Systems of this machine's own that a load is tried on: the same components in different processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.local import LocalSystem

CHECKPOINTS: Mapping[str, str] = {
    "skyreels-v3-r2v": "tiny-r2v",
    "skyreels-v3-extend": "tiny-v2v",
    "skyreels-v3-shot": "tiny-v2v",
    "skyreels-v3-avatar": "tiny-a2v",
    "skyreels-v2-t2v": "tiny-t2v",
    "skyreels-v2-i2v": "tiny-i2v",
    "skyreels-v2-df": "tiny-df",
    "skyreels-v1-t2v": "tiny-v1-t2v",
    "skyreels-v1-i2v": "tiny-v1-i2v",
}
ENCODERS = ("text", "audio", "vision")
ROOM = ("condition", "source", "decode")
EVERY = (*ENCODERS, "condition", "source", "denoise", "decode")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which stages share a process. `running` bounds the jobs that are worked on at once."""

    about: str
    topology: str
    pools: Sequence[Mapping[str, Any]]
    running: int | None = None
    every_core: bool = False  # a thread for each core in every process


def _pool(name: str, stages: Sequence[str], threads: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "stages": list(stages), "threads": threads, **more}


LAYOUTS: Mapping[str, Layout] = {
    "laptop": Layout(
        "as the profile of that name: stages apart, two ranks that share each step",
        "disaggregated",
        [_pool("TextEncoder", ENCODERS), _pool("Denoiser", ["denoise"], ranks=2), _pool("VaeRoom", ROOM)],
    ),
    "original": Layout(
        "one process that makes one job after the other with every core, as the released scripts do",
        "monolith",
        [_pool("Monolith", EVERY)],
        running=1,
        every_core=True,
    ),
    "monolith": Layout(
        "the monolith tuned: two processes of one thread, each with a job's stages overlapping another's",
        "monolith",
        [_pool("Monolith", EVERY, replicas=2)],
    ),
    "shared": Layout(
        "stages apart, encoding and decoding of pictures in one room",
        "disaggregated",
        [_pool("TextEncoder", ENCODERS), _pool("Denoiser", ["denoise"]), _pool("VaeRoom", ROOM)],
    ),
    "apart": Layout(
        "stages apart, encoding and decoding in processes of their own",
        "disaggregated",
        [
            _pool("Encoders", (*ENCODERS, "condition", "source")),
            _pool("Denoiser", ["denoise"]),
            _pool("Decoder", ["decode"]),
        ],
    ),
}


def system(
    folder: Path,
    layout: Layout,
    models: Sequence[str],
    *,
    queued: int | None,
    running: int | None,
    cores: Sequence[int] = (),
) -> LocalSystem:
    """A system that is not started yet. `queued` and `running` limit the one tenant: beyond them there is a 429.

    Raises:
        KeyError: a model that has no tiny checkpoint.
    """
    bound = {"queued": queued, "running": layout.running if layout.running is not None else running}
    served = [{"name": model, "checkpoint": str(folder.parent / CHECKPOINTS[model]), "tiny": True} for model in models]
    threads = {"threads": len(cores or os.sched_getaffinity(0))} if layout.every_core else {}
    pools = [{**pool, **threads} for pool in layout.pools]
    overrides: dict[str, Any] = {
        "models": served,
        "pools": pools,
        "denoise": {"loaded": len(served)},
        "limits": {"default": {name: most for name, most in bound.items() if most is not None}},
    }
    return LocalSystem(folder, topology=layout.topology, overrides=overrides, cores=cores)
