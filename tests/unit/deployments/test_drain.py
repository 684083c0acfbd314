"""The two signs together, and each of them alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ray.exceptions import RaySystemError

from deployments import drain
from deployments.drain import SILENT_PERIODS, DrainWatch

PERIOD_S = 0.02
GRACE_S = 50.0


class Signs:
    """What Serve says, and what the watch made of it."""

    def __init__(self) -> None:
        self.stopping = False
        self.asked = asyncio.Event()
        self.told: asyncio.Queue[float | None] = asyncio.Queue()
        self.watch = DrainWatch(self._stopping, self.told.put, period_s=PERIOD_S, grace_s=GRACE_S)

    async def _stopping(self) -> bool:
        self.asked.set()
        return self.stopping


@asynccontextmanager
async def watching() -> AsyncIterator[Signs]:
    signs = Signs()
    task = asyncio.create_task(signs.watch.run())
    yield signs
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_silence_and_a_stopping_replica_are_a_drain_counted_from_the_last_check() -> None:
    async with watching() as signs:
        signs.stopping = True
        before = time.monotonic()
        await signs.watch.seen()
        after = time.monotonic()
        kill_s = await signs.told.get()
        assert kill_s is not None
        assert before + GRACE_S <= kill_s <= after + GRACE_S
        assert time.monotonic() > before + SILENT_PERIODS * PERIOD_S
        signs.asked.clear()
        await asyncio.sleep(10 * PERIOD_S)
        assert signs.told.empty()  # told once
        assert not signs.asked.is_set()


async def test_silence_alone_is_none() -> None:
    """Serve's controller may be restarting."""
    async with watching() as signs:
        await signs.watch.seen()
        for _ in range(3):
            signs.asked.clear()
            await signs.asked.wait()
        assert signs.told.empty()


async def test_nobody_is_asked_before_the_first_check() -> None:
    """A replica that still loads is not checked."""
    async with watching() as signs:
        signs.stopping = True
        await asyncio.sleep(10 * PERIOD_S)
        assert not signs.asked.is_set()


async def test_a_check_after_all_ends_the_drain_and_another_one_may_begin() -> None:
    async with watching() as signs:
        signs.stopping = True
        await signs.watch.seen()
        assert await signs.told.get() is not None
        signs.stopping = False
        await signs.watch.seen()
        assert await signs.told.get() is None
        signs.stopping = True
        assert await signs.told.get() is not None


async def test_a_check_that_comes_while_serve_is_asked_counts() -> None:
    async with watching() as signs:
        answer = asyncio.Event()

        async def slow() -> bool:
            signs.asked.set()
            await answer.wait()
            return signs.asked.is_set()

        signs.watch._stopping = slow
        await signs.watch.seen()
        await signs.asked.wait()
        await signs.watch.seen()
        signs.watch._stopping = signs._stopping
        answer.set()
        signs.asked.clear()
        await signs.asked.wait()  # the answer has been dealt with
        assert signs.told.empty()


class Report:
    """The parts of Serve's status that are read."""

    def __init__(self, **states: int) -> None:
        self.replica_states = states


class Application:
    def __init__(self, **deployments: Report) -> None:
        self.deployments = deployments


class Status:
    def __init__(self, **applications: Application) -> None:
        self.applications = applications


@pytest.mark.parametrize(
    ("status", "stopping"),
    [
        (Status(sky=Application(Vae=Report(RUNNING=1))), False),
        (Status(sky=Application(Vae=Report(RUNNING=1, STOPPING=1))), True),
        (Status(sky=Application(Vae=Report(RUNNING=1, STOPPING=0), Other=Report(STOPPING=1))), False),
        (Status(sky=Application(Other=Report(RUNNING=1))), True),
        (Status(), True),
    ],
)
def test_a_deployment_stops_replicas_or_is_gone(
    monkeypatch: pytest.MonkeyPatch, status: Status, stopping: bool
) -> None:
    monkeypatch.setattr(drain.serve, "status", lambda: status)
    assert drain._stopping("sky", "Vae") is stopping


def test_without_serve_nobody_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def down() -> Status:
        raise RaySystemError("no answer")

    monkeypatch.setattr(drain.serve, "status", down)
    assert drain._stopping("sky", "Vae") is False
