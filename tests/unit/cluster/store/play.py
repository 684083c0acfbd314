"""Drives jobs through a store as Scheduler and workers would."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.graphs import StageGraph
from cluster.records import Event, Job, Request, StageCall, StageRef, StageState, StageWork
from cluster.store.base import JobStore, Leadership
from cluster.wiring import graph
from tests.unit.cluster.makers import ARTIFACT, REQUEST, handle

ROOT = Path(__file__).parents[4]
TENANT = "acme"
LEASE_S = 600.0
R2V = graph("r2v", 1)
PORTS = {"text": "context", "condition": "condition", "denoise": "latents", "decode": "video"}


@dataclass
class Play:
    """A store, and who leads on it."""

    store: JobStore
    leadership: Leadership

    async def create(
        self, job_id: str = "j1", request: Request = REQUEST, graph: StageGraph = R2V, **options: Any
    ) -> Job:
        return await self.store.create_job(job_id, TENANT, request, graph, **options)

    async def job(self, job_id: str = "j1") -> Job:
        return await self.store.get_job(job_id, TENANT)

    async def dispatch(self, stage: str, job_id: str = "j1", chunk: int = 0, result: int = 0) -> StageCall:
        (call,) = await self.store.dispatch(self.leadership, [StageRef(job_id, stage, chunk, result)])
        return call

    async def take(
        self,
        stage: str,
        job_id: str = "j1",
        *,
        worker: str = "w1",
        lease_s: float = LEASE_S,
        chunk: int = 0,
        result: int = 0,
    ) -> StageWork:
        work = await self.store.claim(await self.dispatch(stage, job_id, chunk, result), worker, lease_s)
        assert work is not None
        return work

    async def finish(self, stage: str, job_id: str = "j1") -> StageCall:
        call = (await self.take(stage, job_id)).call
        await self.store.complete(call, outputs(stage), ARTIFACT if stage == "decode" else None)
        return call

    async def until(self, stage: str, job_id: str = "j1") -> None:
        """Finishes everything before a stage."""
        for name in PORTS:
            if name == stage:
                return
            await self.finish(name, job_id)

    async def published(self, job_id: str = "j1") -> Job:
        await self.until("", job_id)
        return await self.job(job_id)

    async def stage(self, name: str, job_id: str = "j1") -> StageState:
        return next(status.state for status in (await self.job(job_id)).stages if status.stage == name)

    async def log(self, job_id: str = "j1") -> Sequence[Event]:
        events = await self.store.events(job_id, TENANT)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return events

    async def everything(self, job_id: str = "j1") -> tuple[Job, Sequence[Event]]:
        """All a client can see: equal before and after means that nothing changed."""
        return await self.job(job_id), await self.log(job_id)


def outputs(stage: str) -> dict[str, Any]:
    return {PORTS[stage]: handle(f"{stage}.0")}


async def python(*arguments: str, stdout: int | None = None) -> asyncio.subprocess.Process:
    """Another interpreter in this tree."""
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=stdout)
