"""The decode stage with everything around it: stores, lease, room. As a program, it measures the stage's memory."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cluster.config import Cache, parse
from cluster.records import Artifact, SegmentFile, StageWork
from cluster.store import open_store
from cluster.store.base import JobStore
from cluster.wiring import graph
from components.device import Placement
from components.tiny import write_r2v
from components.values import Latents
from deployments.artifacts import ArtifactStore, job_key
from deployments.cache import EncodingCache
from deployments.leases import Lease
from deployments.room import Produced, Room
from deployments.stages import DecodeStage, Weights
from deployments.telemetry import Laps, StageMetrics, logger
from deployments.transport import DurableTransport
from tests.unit.cluster.makers import request
from tests.unit.cluster.store.play import TENANT, Play
from tests.unit.deployments.api.conftest import PROFILE

MODEL = "skyreels-v3-r2v"


def decode_stage(checkpoint: Path) -> DecodeStage:
    write_r2v(checkpoint)
    config = parse(PROFILE.format(state=checkpoint, allow=[]), "test")
    return DecodeStage(Weights(config, config.pools[0], {MODEL: checkpoint}, Placement.of("cpu")))


@dataclass
class Decoding:
    """One system whose decode stage can be run by hand."""

    store: JobStore
    artifacts: ArtifactStore
    play: Play
    folder: Path
    stage: DecodeStage

    async def ready(self, frames: int, *, job_id: str = "j1", n: int = 1, **changes: Any) -> None:
        """A job whose latents are there."""
        asked = request(frames=frames, n=n, **changes)
        height, width = asked.height, asked.width
        await self.play.create(job_id, asked, graph("r2v", n))
        for name in ("text", "condition"):
            await self.play.finish(name, job_id)
        transport = DurableTransport(self.artifacts, cache_nbytes=0)
        shape = (1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
        for result in range(n):
            work = await self.play.take("denoise", job_id, result=result)
            latents = Latents(torch.randn(shape, generator=torch.Generator().manual_seed(1 + result)))
            handle = await transport.put(job_key(job_id, "work", f"{result}.safetensors"), latents)
            await self.play.store.complete(work.call, {"latents": handle})

    async def take(self, job_id: str = "j1", store: JobStore | None = None, result: int = 0) -> Room:
        """A new attempt's room."""
        work: StageWork = await self.play.take("decode", job_id, result=result)
        scratch = self.folder / f"scratch-{work.call.ref.part}-{work.call.epoch}"
        scratch.mkdir(exist_ok=True)
        return Room(
            lease=Lease(work),
            store=store or self.store,
            artifacts=self.artifacts,
            transport=DurableTransport(self.artifacts, cache_nbytes=0),
            metrics=StageMetrics(("decode",)),
            hints={},
            laps=Laps(),
            executor=ThreadPoolExecutor(1),
            cache=EncodingCache(self.artifacts, Cache(), logger()),
            scratch=scratch,
        )

    async def segments(self, job_id: str = "j1") -> list[SegmentFile]:
        return [segment for chunk in (await self.store.segments(job_id, TENANT)).values() for segment in chunk]

    async def run(self, room: Room) -> Artifact:
        produced: Produced = await self.stage.run(room)
        assert produced.artifact is not None
        return produced.artifact

    async def complete(self, room: Room, artifact: Artifact) -> None:
        result = await room.close(Produced(artifact=artifact))
        await self.store.complete(room.work.call, result.handles, result.artifact)


@asynccontextmanager
async def opened(folder: Path, stage: DecodeStage) -> AsyncIterator[Decoding]:
    store = open_store(f"sqlite+aiosqlite:///{folder / 'jobs.db'}")
    await store.open()
    leadership = await store.lead("s1", 600.0)
    assert leadership is not None
    yield Decoding(store, ArtifactStore(str(folder / "artifacts")), Play(store, leadership), folder, stage)
    await store.close()


async def peaks(folder: Path, lengths: list[int]) -> list[int]:
    """The process's largest resident size after each of these clips, in bytes."""
    torch.set_num_threads(1)
    found = []
    async with opened(folder, decode_stage(folder / "checkpoint")) as decoding:
        for frames in lengths:
            await decoding.ready(frames, job_id=f"j{frames}", height=128, width=128)
            await decoding.run(await decoding.take(f"j{frames}"))
            found.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return found


if __name__ == "__main__":
    sys.stdout.write(" ".join(map(str, asyncio.run(peaks(Path(sys.argv[1]), [int(n) for n in sys.argv[2:]])))))
    sys.stdout.flush()
    os._exit(0)
