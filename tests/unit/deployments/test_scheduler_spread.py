"""How the Scheduler hands calls over, with replicas that only say who they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.policy.dispatch import plan
from cluster.records import StageCall, decode
from cluster.store import open_store
from cluster.wiring import graph
from deployments.hints import Ack
from deployments.scheduler import Scheduler
from tests.unit.cluster.makers import request, worker
from tests.unit.cluster.store.play import PORTS, Play
from tests.unit.deployments.group.jobs import config

GROUPS = ("g1", "g2")


class Replicas:
    """A deployment of some replicas and its handle. Whoever looks which is free learns of others' calls late."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.calls: dict[StageCall, str] = {}
        self.whole = asyncio.Event()

    @property
    def run(self) -> Replicas:
        return self

    @asynccontextmanager
    async def choose_replica(self) -> AsyncIterator[str]:
        known = dict(self.taken)
        await asyncio.sleep(0.01)
        place = min(GROUPS, key=lambda name: known.get(name, 0))
        self.taken[place] += 1
        yield place
        self.taken[place] -= 1

    async def dispatch(self, place: str, message: dict[str, Any], hints: Mapping[str, Any]) -> Ack:
        self.calls[decode(StageCall, message)] = place
        await self._others()
        return Ack("stale")

    async def remote(self, message: dict[str, Any], hints: Mapping[str, Any]) -> Ack:
        return await self.dispatch("any", message, hints)

    async def _others(self) -> None:
        """A call lasts until all have come."""
        if len(self.calls) == 2:
            self.whole.set()
        await self.whole.wait()


class Held(Scheduler):
    """Serve awaits the end of a Scheduler; here nobody does it in passing."""

    def __del__(self) -> None:
        """See `Scheduler.__del__`, which the test awaits."""


@pytest.fixture
async def play(tmp_path: Path) -> AsyncIterator[Play]:
    store = open_store(config(tmp_path / "none", tmp_path).store_url)
    await store.open()
    leadership = await store.lead("test", 600.0)
    assert leadership is not None
    yield Play(store, leadership)
    await store.close()


@pytest.mark.parametrize(("workers", "places"), [(GROUPS, {"g1", "g2"}), (GROUPS[:1], {"any"})])
async def test_calls_sent_at_once_go_to_different_replicas_where_there_are_several(
    play: Play, tmp_path: Path, workers: tuple[str, ...], places: set[str]
) -> None:
    await play.create(request=request(n=2), graph=graph("r2v", 2))
    await play.until("denoise")
    for name in workers:
        await play.store.register(worker(name, denoise=2))
    state = await play.store.state(worker_ttl_s=60)
    assert len(plan(state)) == 2
    await play.store.resign(play.leadership)
    replicas = Replicas()
    scheduler = Held.__new__(Held)
    await scheduler.__init__(config(tmp_path / "none", tmp_path), dict.fromkeys(PORTS, replicas))
    async with asyncio.timeout(60):
        await replicas.whole.wait()
    assert {call.ref.result for call in replicas.calls} == {0, 1}
    assert set(replicas.calls.values()) == places
    await Scheduler.__del__(scheduler)
