"""The Scheduler: stateless loops over the store that hand ready stages to free workers.

Any number may run (two do during a redeploy); the one with the fenced leader lease acts. It is woken by the Api and
by every acknowledged call, and polls as a fallback. All decisions are pure functions in `cluster.policy`; all state
is in the store, so a killed Scheduler loses nothing but its hints, which spare a read each.

What nobody calls it for (a replica that registers, a cancel, a job to publish) it learns from the store's news.

Two loops, so that no finished stage waits behind housekeeping: one dispatches and publishes, the other leads, reaps and
sweeps.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cluster.config import Config
from cluster.errors import StaleEpoch, Unavailable
from cluster.graphs import StageGraph
from cluster.policy.dispatch import plan
from cluster.policy.lease import Grace
from cluster.records import Failure, StageCall, StageRef, Verdict, encode
from cluster.store import open_store
from cluster.store.base import ClusterState, Leadership
from cluster.store.news import Topic
from cluster.wiring import graph
from deployments.artifacts import ArtifactStore
from deployments.hints import Ack, HintTable
from deployments.nodes import find_misplaced
from deployments.sweeper import Sweeper
from deployments.telemetry import Laps, SchedulerMetrics, bound, logger

KEEP_S = 1.0
SWEEP_S = 5.0
ORPHANS_S = 3600.0
PLACEMENT_S = 15.0
LOOK_S = 2.0  # without news: what time alone has changed
Action = Callable[[], Awaitable[None]]


class StageHandle(Protocol):
    """The part of a Serve deployment handle that the Scheduler uses."""

    @property
    def run(self) -> Any: ...


class Scheduler:
    """One Serve deployment; `handles` maps each stage to the deployment that hosts it."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, config: Config, handles: Mapping[str, StageHandle]
    ) -> None:
        self._timing = config.scheduler
        self._limits = config.limits
        self._pools = config.pools
        self._misplaced: Mapping[str, str] = {}
        self._handles = handles
        self._store = open_store(config.store_url)
        await self._store.open()
        self._log = logger()
        artifacts = ArtifactStore.of(config)
        self._sweeper = Sweeper(self._store, artifacts, self._log, keep_s=config.artifacts.keep_s)
        self._owner = f"scheduler-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._metrics = SchedulerMetrics()
        self._leadership: Leadership | None = None
        # Half of the object store: the rest is for values on their way.
        self._hints: HintTable[Any] = HintTable(limit_nbytes=config.ray.object_store_nbytes // 2)
        self._grace = Grace(self._timing.lease_ttl_s)
        self._due = dict.fromkeys(("sweep", "orphans", "placement"), 0.0)
        self._work = self._store.watch(Topic.WORK, poll_s=self._timing.poll_s)
        self._calls: set[asyncio.Task[None]] = set()
        keep_s = min(KEEP_S, self._timing.leader_ttl_s / 3)
        self._loops = [
            asyncio.create_task(self._every(self._keep, lambda: asyncio.sleep(keep_s))),
            asyncio.create_task(self._every(self._advance, self._news)),
        ]

    async def wake(self) -> None:
        """Something may have become ready."""
        self._work.tell()

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        if any(loop.done() for loop in self._loops):
            raise RuntimeError("a scheduling loop has ended")

    async def __del__(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, *self._calls, return_exceptions=True)
        if self._leadership is not None:
            await self._store.resign(self._leadership)
        await self._store.close()

    async def _every(self, act: Action, wait: Action) -> None:
        while True:
            try:
                await act()
                self._grace = self._grace.contact(time.monotonic())
            except StaleEpoch:
                self._log.warning("leadership lost")
                self._leadership = None
            except Unavailable as error:
                self._log.warning("job store unavailable: %s", error)
                self._grace = self._grace.outage()
            await wait()

    async def _news(self) -> None:
        await self._work.wait(LOOK_S)

    async def _advance(self) -> None:
        """What a client waits for."""
        if self._leadership is not None:
            await self._act(self._leadership)

    async def _keep(self) -> None:
        """What may take its time."""
        led = self._leadership is not None
        self._leadership = await self._store.lead(self._owner, self._timing.leader_ttl_s)
        self._metrics.leading.set(float(self._leadership is not None))
        if self._leadership is None:
            self._hints.clear()
            return
        touched: Sequence[StageRef] = ()
        if self._grace.may_reap(time.monotonic()):
            touched = await self._store.reap(
                self._leadership, dispatch_ttl_s=self._timing.dispatch_ttl_s, max_losses=self._timing.max_losses
            )
        for ref in touched:
            self._log.warning("lease expired", extra=ref.named)
        if touched or not led:
            self._work.tell()
        await self._forget_ended()
        if self._is_due("sweep", SWEEP_S):
            await self._sweeper.sweep()
        if self._is_due("orphans", ORPHANS_S):
            await self._sweeper.sweep_orphans()
        if self._is_due("placement", PLACEMENT_S):
            await self._look_at_placement()

    async def _look_at_placement(self) -> None:
        """Says once what Ray would wait for in silence."""
        known, self._misplaced = self._misplaced, await find_misplaced(self._pools)
        for pool in self._misplaced.keys() - known.keys():
            self._log.error("%s", self._misplaced[pool], extra={"pool": pool})

    def _is_due(self, action: str, period_s: float) -> bool:
        now = time.monotonic()
        if now < self._due[action]:
            return False
        self._due[action] = now + period_s
        return True

    async def _forget_ended(self) -> None:
        if held := set(self._hints.jobs):
            living = await self._store.living(held)
            for job_id in held - living:
                self._hints.ended(job_id)
        self._metrics.hint_nbytes.set(self._hints.nbytes)

    async def _act(self, leadership: Leadership) -> None:
        """One reading, and all that follows from it."""
        laps = Laps()
        with laps.lap("plan"):
            state = await self._store.state(worker_ttl_s=self._timing.lease_ttl_s, limits=self._limits)
            refs = plan(state, limits=self._limits)
        if refs:
            await self._dispatch(leadership, state, refs, laps)
        for job_id in state.publishing:
            await self._store.publish(leadership, job_id)

    async def _dispatch(
        self, leadership: Leadership, state: ClusterState, refs: Sequence[StageRef], laps: Laps
    ) -> None:
        with laps.lap("dispatch"):
            calls = await self._store.dispatch(leadership, refs)
        ready = {item.ref: item for item in state.ready}
        for call in calls:
            item = ready[call.ref]
            task = asyncio.create_task(self._send(call, graph(item.graph, item.results)))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        await asyncio.sleep(0)  # they are on their way before anything is counted
        for call in calls:
            tags = {"stage": call.ref.stage}
            self._metrics.dispatched.inc(tags=tags)
            self._metrics.queue_seconds.observe((state.now - ready[call.ref].ready_at).total_seconds(), tags=tags)
        self._metrics.boundary.observe(laps)
        told = {"calls": [str(call.ref) for call in calls], **laps.told()}
        self._log.info("dispatched", extra=told)

    async def _send(self, call: StageCall, stages: StageGraph) -> None:
        """One stage call; the answer is only an ack. A dead worker is reported at once instead of after its lease."""
        with bound(**call.ref.named, epoch=call.epoch):
            try:
                ack: Ack = await self._handles[call.ref.stage].run.remote(encode(call), self._hints.of(call.ref))
                self._note(call, stages, ack)
            except (RayError, RayServeException) as error:
                self._log.warning("worker lost: %s", type(error).__name__)
                self._metrics.lost.inc(tags={"stage": call.ref.stage})
                await self._lose(call)
            finally:
                self._work.tell()

    def _note(self, call: StageCall, stages: StageGraph, ack: Ack) -> None:
        """Keeps the hints that the next stages may use, drops those that nobody will."""
        if ack.outcome == Verdict.CANCELLED:
            self._hints.ended(call.ref.job_id)
        elif ack.outcome == "done" and self._leadership is not None:
            self._hints.done(call.ref)
            self._hints.keep(call.ref, stages, ack.hints, ack.nbytes)

    async def _lose(self, call: StageCall) -> None:
        reason = Failure("worker_lost", f"The worker of stage {call.ref.stage} died.")
        try:
            await self._store.lose(call, reason, max_losses=self._timing.max_losses)
        except Unavailable:
            self._log.warning("job store unavailable; the lease will expire instead")
