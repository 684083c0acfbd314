"""Kills and freezes processes as the scenario says, and measures how long the system takes to be whole again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator, Sequence

import psutil

from loadtest.chaos.client import Client
from loadtest.chaos.evidence import Hurt
from loadtest.chaos.scenario import HurtPlan
from loadtest.processes import RANKS, Processes, lives

WATCH_S = 240.0
POLL_S = 0.5
MOST_WOUNDED = 2  # kinds at once; more, and on a slow machine nothing would ever be whole again
FIXED = ("Api", "Scheduler", "Courier")  # deployments that are no pool


class Hurter:
    """Hurts one system. `hurts` lists what was done."""

    def __init__(self, client: Client, processes: Processes, stages: frozenset[str], pools: Sequence[str]) -> None:
        self._client = client
        self._processes = processes
        self._stages = stages
        found = {kind: len(processes.of(kind)) for kind in (*FIXED, *pools, *RANKS)}
        self._counts = {kind: count for kind, count in found.items() if count}
        self._wounded: set[str] = set()
        self._healed = asyncio.Event()
        self._began = time.monotonic()
        self.hurts: list[Hurt] = []

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of processes that this system has."""
        return tuple(self._counts)

    async def run(self, plans: Iterator[HurtPlan]) -> None:
        """Hurts until it is cancelled; what is frozen then goes on."""
        async with asyncio.TaskGroup() as watches:
            for plan in plans:
                await asyncio.sleep(plan.wait_s)
                while len(self._wounded) >= min(MOST_WOUNDED, len(self._counts)):
                    self._healed.clear()
                    await self._healed.wait()
                whole = [kind for kind in self._counts if kind not in self._wounded]
                victims = {kind: alive for kind in whole if (alive := self._processes.of(kind))}
                if not victims:
                    continue
                kind = tuple(victims)[int(plan.kind * len(victims))]
                victim = victims[kind][int(plan.pick * len(victims[kind]))]
                self._wounded.add(kind)
                watches.create_task(self._hurt(plan, kind, victim))

    async def _hurt(self, plan: HurtPlan, kind: str, victim: psutil.Process) -> None:
        try:
            await self._hurt_and_watch(plan, kind, victim)
        finally:
            self._wounded.discard(kind)
            self._healed.set()

    async def _hurt_and_watch(self, plan: HurtPlan, kind: str, victim: psutil.Process) -> None:
        frozen = plan.number == signal.SIGSTOP
        hurt = Hurt(
            at_s=time.monotonic() - self._began,
            kind=kind,
            pid=victim.pid,
            signal=plan.number.name,
            freeze_s=plan.freeze_s if frozen else 0.0,
        )
        try:
            victim.send_signal(plan.number)
        except psutil.NoSuchProcess:
            return
        self.hurts.append(hurt)
        began = time.monotonic()
        try:
            if frozen:
                await asyncio.sleep(plan.freeze_s)
        finally:
            if frozen:
                with contextlib.suppress(psutil.NoSuchProcess):  # the system replaced it meanwhile
                    victim.send_signal(signal.SIGCONT)
        while time.monotonic() < began + WATCH_S:
            if await self._whole(kind, victim, frozen=frozen):
                hurt.whole_after_s = time.monotonic() - began
                return
            await asyncio.sleep(POLL_S)

    async def _whole(self, kind: str, victim: psutil.Process, *, frozen: bool) -> bool:
        """As many of the kind as at the start, and a slot of every stage."""
        if not frozen and lives(victim):
            return False
        if len(self._processes.of(kind)) < self._counts[kind]:
            return False
        response = await self._client.once("GET", "/v1/status")
        if response is None or response.is_error:
            return False
        report = response.json()
        dead = {worker["pid"] for worker in report["workers"]} & ({victim.pid} if not frozen else set())
        return self._stages <= report["slots"].keys() and not dead
