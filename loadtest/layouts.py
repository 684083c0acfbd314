"""Systems of this machine's own that a load is tried on: the same components in different processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.local import LocalSystem

CHECKPOINTS: Mapping[str, str] = {
    "skyreels-v3-r2v": "tiny-r2v",
    "skyreels-v3-extend": "tiny-v2v",
    "skyreels-v3-shot": "tiny-v2v",
    "skyreels-v3-avatar": "tiny-a2v",
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
    extra: Mapping[str, Any] = field(default_factory=dict)


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
        [_pool("Monolith", EVERY, threads=2)],
        running=1,
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
    overrides: dict[str, Any] = {
        "models": served,
        "pools": list(layout.pools),
        "denoise": {"loaded": len(served)},
        "limits": {"default": {name: most for name, most in bound.items() if most is not None}},
        **layout.extra,
    }
    return LocalSystem(folder, topology=layout.topology, overrides=overrides, cores=cores)
