"""Every call to ranks ends: the actors here answer as scripted, or never."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError

from deployments.group.commands import Done, Failed, Load, Outcome
from deployments.group.ranks import GroupBroken
from deployments.group.remote import RayRanks
from tests.unit.deployments.group.jobs import config

LOAD = Load("skyreels-v3-r2v")


class Actor:
    """A rank whose method calls are these futures."""

    def __init__(self) -> None:
        self.living: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    @property
    def live(self) -> Any:
        return type("Method", (), {"remote": staticmethod(lambda: self.living)})

    @property
    def execute(self) -> Any:
        return type("Method", (), {"remote": staticmethod(lambda _number, _command: self.answer)})


class Group(RayRanks):
    """Two such ranks, up and watched."""

    def __init__(self, folder: Path) -> None:
        made = config(folder / "weights", folder, ranks=2)
        super().__init__(made, made.pools[0])
        self.actors = self._actors = [Actor(), Actor()]
        self.deaths = 0
        self._death = asyncio.get_running_loop().create_future()
        self._lives = [asyncio.create_task(self._watch(actor, self._count)) for actor in self._actors]

    def _count(self) -> None:
        self.deaths += 1


@pytest.fixture
async def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


@pytest.mark.parametrize(
    "error", [ActorDiedError(), ActorUnavailableError("no answer", None), OutOfMemoryError("killed")]
)
async def test_a_death_ends_a_call_that_never_learns_of_it(group: Group, error: RayError) -> None:
    call = asyncio.create_task(group.call(1, LOAD))
    group.actors[0].answer.set_result(Done())
    await asyncio.sleep(0)
    group.actors[1].living.set_exception(error)
    with pytest.raises(GroupBroken) as broken:
        await call
    assert broken.value.kind == "death"
    assert group.deaths == 1
    assert not group.alive


async def test_a_call_after_a_death_ends_at_once(group: Group) -> None:
    for actor in group.actors:
        actor.living.set_exception(ActorDiedError())
    await asyncio.wait(group._lives)
    assert group.deaths == 1
    with pytest.raises(GroupBroken, match="a rank is lost"):
        await group.call(1, LOAD)


async def test_a_call_to_ranks_that_are_stopped_ends_at_once(group: Group) -> None:
    group._death = None
    with pytest.raises(GroupBroken) as broken:
        await group.call(1, LOAD)
    assert broken.value.kind == "stopped"


async def test_the_first_rank_that_broke_off_ends_the_wait_for_the_others(group: Group) -> None:
    failed = Failed("generation_failed", "It failed.", "left a collective", retryable=True, broken=True)
    group.actors[1].answer.set_result(failed)
    with pytest.raises(GroupBroken, match="left a collective") as broken:
        await group.call(1, LOAD)
    assert (broken.value.kind, broken.value.failed) == ("collective", failed)


async def test_answers_come_in_the_order_of_ranks(group: Group) -> None:
    call = asyncio.create_task(group.call(1, LOAD))
    group.actors[1].answer.set_result(Done(2))
    await asyncio.sleep(0)
    group.actors[0].answer.set_result(Done(1))
    assert await call == [Done(1), Done(2)]
    assert group.alive
