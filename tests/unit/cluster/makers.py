"""Small valid records for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cluster.records import Artifact, Delivery, Handle, Media, Request, TensorSpec, Worker

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

REQUEST = Request(
    model="skyreels-v3-r2v",
    prompt="a fox in the snow",
    images=(Media("file:///in/a.png", "image/png", 1234, "ab" * 32, 64, 48),),
    aspect_ratio="16:9",
    resolution="64P",
    duration_s=1,
    fps=24,
    height=64,
    width=112,
    frames=25,
    steps=8,
    seed=7,
)

ARTIFACT = Artifact("file:///out/v.mp4", "video/mp4", 4321, "cd" * 32, 25 / 24, 25, 112, 64)


def request(**changes: Any) -> Request:
    return replace(REQUEST, **changes)


def kept_for(ttl_s: int) -> Request:
    return request(delivery=Delivery(ttl_s=ttl_s))


def handle(key: str, kind: str = "Latents") -> Handle:
    return Handle(key, kind, f"file:///work/{key}", 16, (TensorSpec("x", "float32", (2, 2)),))


def worker(name: str = "w1", **slots: int) -> Worker:
    return Worker(name, "Model", slots or {"text": 1, "condition": 1, "denoise": 1, "decode": 1}, "n1", 1, EPOCH, EPOCH)
