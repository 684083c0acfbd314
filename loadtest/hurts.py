"""Processes of a system on this machine that are killed or stopped while traffic goes on, as a scenario says."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence

import httpx
import psutil

from loadtest.mixes import Hurt
from loadtest.processes import Processes
from loadtest.records import Mark

WATCH_S = 120.0
POLL_S = 0.25


class Nobody(Exception):
    """No process of that kind lives."""


class Hurts:
    """Hurts one process after the other at their times, and watches until there are as many of a kind as before."""

    def __init__(self, http: httpx.AsyncClient, processes: Processes, hurts: Sequence[Hurt]) -> None:
        """Nobody."""
        self._http = http
        self._processes = processes
        self._hurts = hurts
        for hurt in hurts:
            self._living(hurt)

    async def __call__(self, began_at: float, marks: list[Mark]) -> None:
        """Adds a mark for each."""
        async with asyncio.TaskGroup() as tasks:
            for hurt in self._hurts:
                tasks.create_task(self._one(hurt, began_at, marks))

    async def _one(self, hurt: Hurt, began_at: float, marks: list[Mark]) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, began_at + hurt.at_s - loop.time()))
        before = self._living(hurt)
        victim, hurt_at = before[0], loop.time()
        stopped = hurt.fault == "stop"
        victim.send_signal(signal.SIGSTOP if stopped else signal.SIGKILL)
        if stopped:
            try:
                await asyncio.sleep(hurt.stop_s)
            finally:
                with contextlib.suppress(psutil.NoSuchProcess):  # the system replaced it meanwhile
                    victim.send_signal(signal.SIGCONT)
        whole_after_s = None
        while whole_after_s is None and loop.time() < hurt_at + WATCH_S:
            await asyncio.sleep(POLL_S)
            if len(self._processes.of(hurt.kind)) >= len(before) and await self._ready():
                whole_after_s = loop.time() - hurt_at
        marks.append(Mark(hurt_at - began_at, f"{hurt.fault} {hurt.kind}", whole_after_s))

    def _living(self, hurt: Hurt) -> list[psutil.Process]:
        found = self._processes.of(hurt.kind)
        if not found:
            raise Nobody(f"No process {hurt.kind!r} lives here; hurts.kind must be a deployment's name or rank.")
        return found

    async def _ready(self) -> bool:
        try:
            return (await self._http.get("/readyz")).is_success
        except httpx.HTTPError:
            return False
