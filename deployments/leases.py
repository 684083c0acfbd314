"""The worker's side of the lease protocol: one keeper per process renews every claimed stage at once.

The keeper sends one batched heartbeat per `heartbeat_s` and asks four times a second (`verdict_s`, read-only) which
stages must stop, so a cancel frees the worker within one step or half a second. While the store cannot be reached
the work goes on: leases do not expire until one full time-to-live after it is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from cluster.config import Scheduler as Timing
from cluster.errors import Unavailable
from cluster.records import Beat, StageCall, StageRef, StageWork, Verdict
from cluster.store.base import JobStore

Action = Callable[[], Awaitable[None]]


class Revoked(Exception):
    """The stage must stop and write nothing: its job ended or somebody else owns it."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.value)
        self.verdict = verdict


class Lease:
    """One claimed stage as its own code sees it."""

    def __init__(self, work: StageWork) -> None:
        self.work = work
        self._progress = (0, 0)
        self._busy_s = 0.0  # of computations that have ended
        self._computing = 0
        self._since_s = 0.0  # when the first of those that run now began
        self.revoked = asyncio.Event()  # for code that waits: `check` then says why
        self._verdict = Verdict.ALIVE

    def advance(self, step: int, steps: int) -> None:
        """Reports progress and is the point at which a revoked stage stops.

        Raises:
            Revoked: stop now.
        """
        self._progress = (step, steps)
        self.check()

    @property
    def beat(self) -> Beat:
        """What the next heartbeat says of the stage."""
        return Beat(self.work.call, *self._progress, self.busy_s)

    @property
    def busy_s(self) -> float:
        """Compute time of this attempt so far, on each of its devices."""
        return self._busy_s + (time.monotonic() - self._since_s if self._computing else 0.0)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, the stage's devices work for this attempt; what overlaps counts once."""
        if not self._computing:
            self._since_s = time.monotonic()
        self._computing += 1
        try:
            yield
        finally:
            if self._computing == 1:
                self._busy_s = self.busy_s
            self._computing -= 1

    def check(self) -> None:
        """Raises Revoked when the stage must stop."""
        if self._verdict is not Verdict.ALIVE:
            raise Revoked(self._verdict)

    def judge(self, verdict: Verdict) -> None:
        """A verdict never returns to ALIVE."""
        if self._verdict is Verdict.ALIVE and verdict is not Verdict.ALIVE:
            self._verdict = verdict
            self.revoked.set()


class LeaseKeeper:
    """Renews this process's leases until closed."""

    def __init__(self, store: JobStore, worker_id: str, timing: Timing, log: logging.Logger) -> None:
        self._store = store
        self._worker_id = worker_id
        self._timing = timing
        self._log = log
        self._leases: dict[StageRef, Lease] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to beat, in the running event loop."""
        loops = ((self._heartbeat, self._timing.heartbeat_s), (self._ask, self._timing.verdict_s))
        self._tasks = [asyncio.create_task(self._every(period, action)) for action, period in loops]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def healthy(self) -> bool:
        """False once a loop has died; the replica's health check reports it."""
        return not any(task.done() for task in self._tasks)

    @asynccontextmanager
    async def claimed(self, call: StageCall, devices: int = 1) -> AsyncIterator[Lease | None]:
        """Claims the call for that many devices and keeps its lease alive inside the block; None when another worker
        has it.
        """
        work = await self._store.claim(call, self._worker_id, self._timing.lease_ttl_s, devices=devices)
        if work is None:
            yield None
            return
        lease = Lease(work)
        self._leases[call.ref] = lease
        try:
            yield lease
        finally:
            if self._leases.get(call.ref) is lease:
                del self._leases[call.ref]

    async def _every(self, period_s: float, action: Action) -> None:
        while True:
            try:
                await action()
            except Unavailable as error:
                self._log.warning("job store unavailable, work goes on: %s", error)
            await asyncio.sleep(period_s)

    async def _heartbeat(self) -> None:
        leases = dict(self._leases)
        beats = [lease.beat for lease in leases.values()]
        verdicts = await self._store.heartbeat(self._worker_id, beats, self._timing.lease_ttl_s)
        self._apply(leases, verdicts)

    async def _ask(self) -> None:
        leases = dict(self._leases)
        if leases:
            self._apply(leases, await self._store.verdicts([lease.work.call for lease in leases.values()]))

    @staticmethod
    def _apply(leases: dict[StageRef, Lease], verdicts: Mapping[StageRef, Verdict]) -> None:
        for ref, verdict in verdicts.items():
            if ref in leases:
                leases[ref].judge(verdict)
