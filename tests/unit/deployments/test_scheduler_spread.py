"""How the Scheduler hands calls over, with replicas that only say who they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.config import Config
from cluster.policy.dispatch import plan
from cluster.records import StageCall, Worker, decode
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
        self.models: list[str] = []  # that a replica was asked to hold

    def options(self, *, multiplexed_model_id: str) -> Replicas:
        self.models.append(multiplexed_model_id)
        return self

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


async def hand_over(play: Play, settings: Config, workers: Sequence[Worker]) -> Replicas:
    """Two results of one job, each handed to a replica."""
    await play.create(request=request(n=2), graph=graph("r2v", 2))
    await play.until("denoise")
    for one in workers:
        await play.store.register(one)
    state = await play.store.state(worker_ttl_s=60)
    assert len(plan(state)) == 2
    await play.store.resign(play.leadership)
    replicas = Replicas()
    scheduler = Held.__new__(Held)
    await scheduler.__init__(settings, dict.fromkeys(PORTS, replicas))
    async with asyncio.timeout(60):
        await replicas.whole.wait()
    await Scheduler.__del__(scheduler)
    assert {call.ref.result for call in replicas.calls} == {0, 1}
    return replicas


@pytest.mark.parametrize(("workers", "places"), [(GROUPS, {"g1", "g2"}), (GROUPS[:1], {"any"})])
async def test_calls_sent_at_once_go_to_different_replicas_where_there_are_several(
    play: Play, tmp_path: Path, workers: tuple[str, ...], places: set[str]
) -> None:
    settings = config(tmp_path / "none", tmp_path)
    replicas = await hand_over(play, settings, [worker(name, denoise=2) for name in workers])
    assert set(replicas.calls.values()) == places
    assert replicas.models == []  # there is but one


@pytest.mark.parametrize(("workers", "asked"), [(GROUPS, 2), (GROUPS[:1], 0)])
@pytest.mark.parametrize("loaded", [1, 2])
async def test_a_replica_that_holds_the_model_is_asked_first_where_not_all_do(
    play: Play, tmp_path: Path, workers: tuple[str, ...], asked: int, loaded: int
) -> None:
    names = ("skyreels-v3-r2v", "skyreels-v3-shot")
    models = [{"name": name, "checkpoint": str(tmp_path / "none"), "tiny": True} for name in names]
    settings = config(tmp_path / "none", tmp_path, models=models, denoise={"loaded": loaded})
    live = [replace(worker(name, denoise=2), loaded=(names[0],)) for name in workers]
    replicas = await hand_over(play, settings, live)
    assert replicas.models == [names[0]] * (asked if loaded == 1 else 0)
