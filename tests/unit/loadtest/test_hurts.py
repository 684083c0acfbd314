"""Processes are hurt at their times, and watched until there are as many as before."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from loadtest.hurts import Hurts, Nobody
from loadtest.mixes import Hurt
from loadtest.processes import lives
from loadtest.records import Mark


class Here:
    """A kind of process of which there is always one: another begins when it dies."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        self.started.append(subprocess.Popen(["sleep", "100"]))

    def of(self, kind: str) -> list[psutil.Process]:
        if kind != "VaeRoom":
            return []
        if self.started[-1].poll() is not None:
            self.start()
        return [process for one in self.started if one.poll() is None and lives(process := psutil.Process(one.pid))]


@pytest.fixture
def here() -> Iterator[Here]:
    here = Here()
    yield here
    for process in here.started:
        process.kill()
        process.wait()


def hurt(here: Any, **changes: Any) -> list[Mark]:
    async def program() -> list[Mark]:
        marks: list[Mark] = []
        transport = httpx.MockTransport(lambda request: httpx.Response(200 if request.url.path == "/readyz" else 404))
        async with httpx.AsyncClient(transport=transport, base_url="http://known") as http:
            told = {"at_s": 0.1, "kind": "VaeRoom", **changes}
            await Hurts(http, here, [Hurt.model_validate(told)])(asyncio.get_running_loop().time(), marks)
        return marks

    return asyncio.run(program())


def test_a_killed_process_is_marked_until_another_took_its_place(here: Here) -> None:
    (mark,) = hurt(here)
    assert mark.what == "kill VaeRoom"
    assert mark.whole_after_s is not None
    assert len(here.started) == 2


def test_a_stopped_process_goes_on(here: Here) -> None:
    (mark,) = hurt(here, fault="stop", stop_s=0.2)
    assert mark.what == "stop VaeRoom"
    assert len(here.started) == 1
    assert psutil.Process(here.started[0].pid).status() == psutil.STATUS_SLEEPING


def test_a_kind_that_is_not_there_is_told_at_once(here: Here) -> None:
    with pytest.raises(Nobody, match="'Scheduler' lives here"):
        hurt(here, kind="Scheduler")
