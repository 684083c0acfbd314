"""The Scheduler over a real job store, without the deployments behind its handles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.config import profile
from cluster.errors import Unavailable
from cluster.pools import STAGES
from cluster.records import StageCall, decode
from cluster.store import open_store
from cluster.wiring import graph
from deployments.hints import Ack
from deployments.scheduler import Scheduler
from tests.unit.cluster.makers import request, worker


class Handle:
    """A deployment that acknowledges every call and does nothing."""

    def __init__(self) -> None:
        self.calls: list[StageCall] = []
        self.run = self

    async def remote(self, call: Any, _hints: Any) -> Ack:
        self.calls.append(decode(StageCall, call))
        return Ack("not claimed")

    @asynccontextmanager
    async def choose_replica(self) -> AsyncIterator[None]:
        yield

    async def dispatch(self, _place: None, call: Any, hints: Any) -> Ack:
        return await self.remote(call, hints)


class Kept(Scheduler):
    """Python calls `__del__` too, which only Serve awaits."""

    def __del__(self) -> None:  # type: ignore[override]
        pass


class Plant:
    """A Scheduler that leads, its store, and the one handle of all stages."""

    def __init__(self, folder: Path) -> None:
        config = profile("laptop")
        url = f"sqlite+aiosqlite:///{folder / 'jobs.db'}"
        self.config = config.model_copy(
            update={"state_dir": str(folder), "store": config.store.model_copy(update={"url": url})}
        )
        self.store = open_store(url)
        self.handle = Handle()
        self.scheduler = object.__new__(Kept)

    async def start(self) -> None:
        await self.store.open()
        await self.store.register(worker("w1"))
        await self.scheduler.__init__(self.config, dict.fromkeys(STAGES, self.handle))  # type: ignore[misc]

    async def called(self, count: int) -> set[str]:
        async with asyncio.timeout(30):
            while len(self.handle.calls) < count:
                await asyncio.sleep(0.01)
        return {call.ref.stage for call in self.handle.calls}


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    plant = Plant(tmp_path)
    await plant.start()
    yield plant
    await Scheduler.__del__(plant.scheduler)
    await plant.store.close()


async def test_while_it_is_paused_nothing_begins_and_then_everything(plant: Plant) -> None:
    await plant.scheduler.reconfigure({"paused": False})
    await plant.store.create_job("first", "t", request(), graph("r2v", 1))
    assert await plant.called(2) == {"text", "condition"}  # it leads, and dispatches
    await plant.scheduler.reconfigure({"paused": True})
    await plant.store.register(worker("w2"))  # with free slots
    await plant.store.create_job("second", "t", request(), graph("r2v", 1))
    for _ in range(3):
        await plant.scheduler._advance()
    assert {call.ref.job_id for call in plant.handle.calls} == {"first"}
    await plant.scheduler.reconfigure({"paused": False})
    await plant.called(4)
    assert {call.ref.job_id for call in plant.handle.calls} == {"first", "second"}


async def test_a_pool_at_nothing_gets_no_call_and_a_replica_that_comes_gets_it(plant: Plant) -> None:
    await plant.store.unregister("w1")
    await plant.store.create_job("job", "t", request(), graph("r2v", 1))
    for _ in range(3):
        await plant.scheduler._advance()
    assert not plant.handle.calls
    await plant.store.register(worker("w2", text=1))
    await plant.scheduler.wake()
    assert await plant.called(1) == {"text"}


async def test_a_scheduler_without_its_store_says_that_it_does_not_lead(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[float] = []
    monkeypatch.setattr(plant.scheduler._metrics.leading, "set", said.append)

    async def says(value: float) -> None:
        async with asyncio.timeout(30):
            while said[-1:] != [value]:
                await asyncio.sleep(0.01)

    async def away(*_: Any) -> None:
        raise Unavailable("The job store does not answer.")

    await says(1.0)
    monkeypatch.setattr(plant.scheduler._store, "lead", away)
    await says(0.0)
