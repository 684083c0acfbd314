"""Kills and freezes processes as the scenario says, and measures how long the system takes to be whole again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine, Iterator, Sequence

import psutil

from loadtest.chaos.client import Client
from loadtest.chaos.evidence import Hurt
from loadtest.chaos.means import Means
from loadtest.chaos.scenario import Fault, HurtPlan
from loadtest.processes import RANKS, Processes, lives

WATCH_S = 240.0
POLL_S = 0.5
MOST_WOUNDED = 2  # kinds at once; more, and on a slow machine nothing would ever be whole again
FIXED = ("Api", "Scheduler", "Courier")  # deployments that are no pool
STORE = "job store"  # what an outage is of
SIGNALS = {Fault.KILL: signal.SIGKILL, Fault.STOP: signal.SIGSTOP}


class NotOwn(Exception):
    """Drains and outages need a system that the harness has started itself."""


class Hurter:
    """Hurts one system. `hurts` lists what was done."""

    def __init__(
        self,
        client: Client,
        processes: Processes,
        stages: frozenset[str],
        pools: Sequence[str],
        means: Means | None = None,
    ) -> None:
        self._client = client
        self._means = means
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
                if plan.fault is Fault.OUTAGE:
                    if STORE not in self._wounded:
                        self._begin(watches, STORE, self._outage(plan))
                    continue
                whole = [kind for kind in self._counts if kind not in self._wounded]
                if plan.fault is Fault.DRAIN:
                    whole = [kind for kind in whole if kind not in RANKS]
                victims = {kind: alive for kind in whole if (alive := self._processes.of(kind))}
                if not victims:
                    continue
                kind = tuple(victims)[int(plan.kind * len(victims))]
                victim = victims[kind][int(plan.pick * len(victims[kind]))]
                work = self._drain(kind, victim) if plan.fault is Fault.DRAIN else self._signal(plan, kind, victim)
                self._begin(watches, kind, work)

    def _begin(self, watches: asyncio.TaskGroup, kind: str, work: Coroutine[None, None, None]) -> None:
        self._wounded.add(kind)
        watches.create_task(self._hurt(kind, work))

    async def _hurt(self, kind: str, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        finally:
            self._wounded.discard(kind)
            self._healed.set()

    async def _signal(self, plan: HurtPlan, kind: str, victim: psutil.Process) -> None:
        frozen = plan.fault is Fault.STOP
        number = SIGNALS[plan.fault]
        hurt = Hurt(self._now_s(), kind, victim.pid, number.name, plan.lasts_s if frozen else 0.0)
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess:
            return
        self.hurts.append(hurt)
        began = time.monotonic()
        try:
            if frozen:
                await asyncio.sleep(plan.lasts_s)
        finally:
            if frozen:
                with contextlib.suppress(psutil.NoSuchProcess):  # the system replaced it meanwhile
                    victim.send_signal(signal.SIGCONT)
        await self._watch(hurt, began, None if frozen else victim)

    async def _drain(self, kind: str, victim: psutil.Process) -> None:
        """Every replica of the deployment is replaced; the old ones give back what they cannot end in time."""
        if self._means is None:
            raise NotOwn
        hurt = Hurt(self._now_s(), kind, victim.pid, Fault.DRAIN.value)
        began = time.monotonic()
        if await self._means.replace(kind):
            self.hurts.append(hurt)
            await self._watch(hurt, began, victim)

    async def _outage(self, plan: HurtPlan) -> None:
        if self._means is None:
            raise NotOwn
        hurt = Hurt(self._now_s(), STORE, 0, Fault.OUTAGE.value, plan.lasts_s)
        self.hurts.append(hurt)
        began = time.monotonic()
        await self._means.outage(plan.lasts_s)
        await self._watch(hurt, began, None)

    async def _watch(self, hurt: Hurt, began: float, gone: psutil.Process | None) -> None:
        """Until the kind is whole, and `gone` no more."""
        while time.monotonic() < began + WATCH_S:
            if await self._whole(hurt.kind, gone):
                hurt.whole_after_s = time.monotonic() - began
                return
            await asyncio.sleep(POLL_S)

    def _now_s(self) -> float:
        return time.monotonic() - self._began

    async def _whole(self, kind: str, gone: psutil.Process | None) -> bool:
        """As many of the kind as at the start, and a slot of every stage."""
        if gone is not None and lives(gone):
            return False
        if len(self._processes.of(kind)) < self._counts.get(kind, 0):
            return False
        response = await self._client.once("GET", "/v1/status")
        if response is None or response.is_error:
            return False
        report = response.json()
        dead = {worker["pid"] for worker in report["workers"]} & ({gone.pid} if gone is not None else set())
        return self._stages <= report["slots"].keys() and not dead
