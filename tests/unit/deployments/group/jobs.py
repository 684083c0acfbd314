"""Denoise calls for tests of the group: real inputs in a real artifact store, real leases, a store that remembers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch

from cluster.config import Config
from cluster.pools import Pool
from cluster.records import Handle, Request, StageCall, StageRef, StageWork
from cluster.store.base import JobStore
from components.values import Condition, Latents, TextContext
from deployments.artifacts import ArtifactStore, job_key
from deployments.call import Call, Result
from deployments.group.controller import Controller
from deployments.group.ranks import Ranks
from deployments.leases import Lease
from deployments.telemetry import GroupMetrics, Laps, StageMetrics
from deployments.transport import DurableTransport
from tests.unit.cluster.makers import EPOCH, request

STAGES = ["text", "audio", "vision", "condition", "source", "denoise", "decode"]
LOG = logging.getLogger("test.group")


@dataclass
class Metrics:
    """What a controller counts, by the names of `GroupMetrics`."""

    reasons: list[str] = field(default_factory=list)
    steps: list[tuple[str, str, float]] = field(default_factory=list)
    held: list[tuple[int, int, float]] = field(default_factory=list)
    worked_s: float = 0.0
    loads: int = 0

    def holds(self, residents: int, places: int, unsaved_s: float) -> None:
        self.held.append((residents, places, unsaved_s))

    def worked(self, seconds: float) -> None:
        self.worked_s += seconds

    def stepped(self, model: str, resolution: str, seconds: float) -> None:
        self.steps.append((model, resolution, seconds))

    def broke(self, kind: str) -> None:
        self.reasons.append(kind)

    def exchanged(self, seconds: float) -> None:
        self.loads += 1


@dataclass
class Snapshots:
    """The part of a job store that a group uses."""

    saved: list[tuple[StageCall, Handle, int]] = field(default_factory=list)
    raising: Exception | None = None
    written: asyncio.Event = field(default_factory=asyncio.Event)

    async def save_snapshot(self, call: StageCall, snapshot: Handle, step: int, *, busy_s: float = 0.0) -> None:
        if self.raising is not None:
            raise self.raising
        self.saved.append((call, snapshot, step))
        self.written.set()

    def steps(self, job_id: str) -> list[int]:
        return [step for call, _, step in self.saved if call.ref.job_id == job_id]


@dataclass
class Works:
    """Makes calls for one configuration."""

    config: Config
    store: Snapshots = field(default_factory=Snapshots)
    metrics: Metrics = field(default_factory=Metrics)
    loaded: list[list[str]] = field(default_factory=list)  # as the controller told it, each time

    def __post_init__(self) -> None:
        self.artifacts = ArtifactStore(self.config.artifacts_root)
        self.transport = DurableTransport(self.artifacts, cache_nbytes=0)
        self.stage_metrics = StageMetrics()

    @property
    def pool(self) -> Pool:
        return self.config.pools[0]

    def controller(self, ranks: Ranks, residents: int = 2) -> Controller:
        metrics = cast(GroupMetrics, self.metrics)
        return Controller(ranks, self.config, residents=residents, metrics=metrics, log=LOG, told=self.told)

    async def told(self, models: Sequence[str]) -> None:
        self.loaded.append(list(models))

    async def inputs(self, job_id: str, asked: Request, poison: bool = False) -> dict[str, Handle]:
        generator = torch.Generator().manual_seed(11)
        context_BLD = torch.randn((1, 12, 32), generator=generator)
        shape = (2, 16, asked.height // 8, asked.width // 8)
        mean_KCHW = torch.randn(shape, generator=generator)
        if poison:
            mean_KCHW[0, 0, 0, 0] = torch.nan
        values = {
            "context": TextContext(context_BLD, context_BLD.flip(1) if asked.guidance > 1 else context_BLD[:, :0]),
            "condition": Condition(mean_KCHW, torch.randn(shape, generator=generator) - 3),
        }
        return {
            port: await self.transport.put(job_key(job_id, "work", f"{port}.safetensors"), value)
            for port, value in values.items()
        }

    async def call(
        self,
        job_id: str,
        *,
        poison: bool = False,
        age_s: float = 0,
        due_s: float | None = None,
        snapshot: Handle | None = None,
        epoch: int = 1,
        result: int = 0,
        **changes: Any,
    ) -> Call:
        asked = request(**changes)
        work = StageWork(
            call=StageCall(StageRef(job_id, "denoise", result=result), epoch),
            attempt=1,
            tenant_id="t",
            request=asked,
            inputs=await self.inputs(job_id, asked, poison),
            snapshot=snapshot,
            created_at=EPOCH - timedelta(seconds=age_s),
            deadline_at=None if due_s is None else EPOCH + timedelta(seconds=due_s),
        )
        lease, store, nowhere = Lease(work), cast(JobStore, self.store), Path("/nowhere")
        return Call(lease, store, self.artifacts, self.stage_metrics, nowhere, hints={}, laps=Laps())

    async def latents(self, result: Result) -> torch.Tensor:
        value = await self.transport.get(result.handles["latents"])
        assert isinstance(value, Latents)
        return value.video_BCTHW


def config(
    root: Path,
    folder: Path,
    *,
    denoise: dict[str, Any] | None = None,
    models: list[dict[str, Any]] | None = None,
    **pool: Any,
) -> Config:
    return Config.model_validate(
        {
            "profile": "test",
            "topology": "monolith",
            "state_dir": str(folder),
            "models": models or [{"name": "skyreels-v3-r2v", "checkpoint": str(root), "tiny": True}],
            "pools": [{"name": "All", "stages": STAGES, **pool}],
            "denoise": denoise or {},
        }
    )


async def reached(call: Call, step: int) -> None:
    """The job has done so many steps."""
    async with asyncio.timeout(60):
        while call.lease.beat.step < step:
            await asyncio.sleep(0.002)
