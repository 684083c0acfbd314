"""Requests of chained models, and when a system worked on them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from cluster.registry import MODELS
from components.tiny import WRITERS
from tests.integration.system import DATA, System
from tests.unit.deployments.line import film, moving, portrait

NAMES = (
    "skyreels-v3-extend",
    "skyreels-v3-shot",
    "skyreels-v3-avatar",
    "skyreels-v2-df",
    "skyreels-v1-t2v",
    "skyreels-v1-i2v",
)
EXTENSION = {"model": "skyreels-v3-extend", "prompt": "the ball rolls on", "seconds": "11", "seed": "7"}
SHOT = {"model": "skyreels-v3-shot", "prompt": "[CUT_IN] the ball from above", "seconds": "2", "seed": "8"}
AVATAR = {"model": "skyreels-v3-avatar", "prompt": "a ball speaks", "seed": "9"}
FORCED = {
    "model": "skyreels-v2-df",
    "prompt": "the ball stops",
    "seconds": "2",
    "seed": "10",
    "steps": "4",
    "ar_step": "2",
    "causal_block_size": "5",
}  # 17 latent frames in blocks of 5 and a window of 10: three chunks
V1 = {"model": "skyreels-v1-i2v", "prompt": "a ball rolls", "seed": "10", "steps": "2"}
SOURCE = ("video", ("source.mp4", film(moving(30)), "video/mp4"))
FACE = ("images", ("face.png", portrait(), "image/png"))
SPOKEN = (DATA / "spoken.flac").read_bytes()  # 6.4 s of espeak-ng
VOICE = ("audio", ("voice.flac", SPOKEN, "audio/flac"))
Form = tuple[dict[str, str], list[Any]]
CHAINS: dict[str, Form] = {
    "extension": (EXTENSION, [SOURCE]),
    "shot": (SHOT, [SOURCE]),
    "avatar": (AVATAR, [FACE, VOICE]),
    "forcing": (FORCED, []),
    "v1": (V1, [FACE]),
}
FRAMES = {"extension": 132 + 132 + 4, "shot": 49, "avatar": 161, "forcing": 77, "v1": 25}
Span = tuple[str, str]  # moments of the store's clock


def rows(folder: Path) -> list[dict[str, Any]]:
    """Models of a configuration, their checkpoints written."""
    found = []
    for name in NAMES:
        writer = WRITERS[MODELS[name].task]
        writer(folder / writer.__name__)
        found.append({"name": name, "checkpoint": str(folder / writer.__name__), "tiny": True})
    return found


def body(name: str) -> dict[str, Any]:
    """A request as httpx takes it: a form where there are files, else JSON."""
    fields, files = CHAINS[name]
    return {"data": fields, "files": files} if files else {"json": fields}


def submit(system: System, name: str) -> str:
    response = system.client.post("/v1/videos", **body(name))
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def spans(system: System, video_id: str, stage: str) -> list[Span]:
    """From when to when each chunk was worked on."""
    query = "SELECT claimed_at, done_at FROM stages WHERE job_id = ? AND stage = ? ORDER BY chunk"
    with closing(sqlite3.connect(system.folder / "state" / "jobs.db")) as database:
        return list(database.execute(query, (video_id, stage)).fetchall())


def overlap(one: Span, other: Span) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])
