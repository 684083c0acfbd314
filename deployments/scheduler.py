"""The Scheduler: stateless loops over the store that hand ready stages to free workers.

Any number may run (two do during a redeploy); the one with the fenced leader lease acts. It is woken by the Api and
by every acknowledged call, and polls as a fallback. All decisions are pure functions in `cluster.policy`; all state
is in the store, so a killed Scheduler loses nothing but its hints, which spare a read each.

What nobody calls it for (a replica that registers, a cancel) it learns from the store's news.

Two loops, so that no finished stage waits behind housekeeping: one dispatches, the other leads, reaps and
sweeps.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Protocol, cast

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cluster.config import Config
from cluster.errors import StaleEpoch, Unavailable
from cluster.graphs import StageGraph
from cluster.policy.dispatch import plan
from cluster.policy.homes import homes
from cluster.policy.lease import Grace
from cluster.records import Failure, StageCall, StageRef, Verdict, encode
from cluster.store import open_store
from cluster.store.base import ClusterState, Leadership
from cluster.store.news import Topic
from cluster.wiring import graph
from deployments.artifacts import ArtifactStore
from deployments.cache_sweeper import CacheSweeper
from deployments.hints import Ack, HintTable
from deployments.homes import scarce
from deployments.nodes import find_misplaced
from deployments.sweeper import Sweeper
from deployments.telemetry import Laps, SchedulerMetrics, StoreMetrics, bound, logger
from deployments.tracing import TracedStore, Tracer, at_ns, now_ns

KEEP_S = 1.0
SWEEP_S = 5.0
CACHE_S = 60.0
ORPHANS_S = 3600.0
PLACEMENT_S = 15.0
COUNT_AFTER_S = 0.02
METRICS_S = 5.0
LOOK_S = 2.0  # without news: what time alone has changed
Action = Callable[[], Awaitable[None]]


class StageHandle(Protocol):
    """The part of a Serve deployment handle that the Scheduler uses."""

    @property
    def run(self) -> Any: ...

    def options(self, *, multiplexed_model_id: str) -> StageHandle: ...


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
        self._scarce = scarce(config)
        self._tracer = Tracer(config.tracing, "Scheduler")
        self._store = open_store(
            config.store_url, TracedStore(self._tracer, StoreMetrics(config.served, config.stages))
        )
        await self._store.open()
        self._log = logger()
        artifacts = ArtifactStore.of(config)
        self._sweeper = Sweeper(self._store, artifacts, self._log, keep_s=config.artifacts.keep_s)
        self._cache_sweeper = CacheSweeper(artifacts, config.cache, self._log)
        self._owner = f"scheduler-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._metrics = SchedulerMetrics(handles)
        self._leadership: Leadership | None = None
        self._paused = False
        # Half of the object store: the rest is for values on their way.
        self._hints: HintTable[Any] = HintTable(limit_nbytes=config.ray.object_store_nbytes // 2)
        self._grace = Grace(self._timing.lease_ttl_s)
        self._cached_nbytes = 0  # at the last sweep
        self._due = dict.fromkeys(("sweep", "cache", "orphans", "placement", "metrics"), 0.0)
        self._work = self._store.watch(Topic.WORK, poll_s=self._timing.poll_s)
        self._turns: Mapping[str, asyncio.Lock] = {stage: asyncio.Lock() for stage in handles}
        self._calls: set[asyncio.Task[None]] = set()
        keep_s = min(KEEP_S, self._timing.leader_ttl_s / 3)
        self._loops = [
            asyncio.create_task(self._every(self._keep, lambda: asyncio.sleep(keep_s))),
            asyncio.create_task(self._every(self._advance, self._news)),
        ]

    async def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Serve calls it with the deployment's `user_config`, at the start and whenever it changes.

        paused: no stage is begun any more; what runs goes on to its end, and requests are accepted and wait.
        """
        self._paused = bool(settings["paused"])
        self._log.info("dispatching is paused" if self._paused else "dispatching")
        self._work.tell()

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
        await asyncio.to_thread(self._tracer.close)

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
        led, leads = self._leadership is not None, False
        try:
            self._leadership = await self._store.lead(self._owner, self._timing.leader_ttl_s)
            leads = self._leadership is not None
        finally:
            self._metrics.leading.set(float(leads))  # while the store is away, too: who says nothing is forgotten
        if self._leadership is None:
            self._hints.clear()
            self._metrics.cluster.forget()
            return
        touched: Sequence[StageRef] = ()
        if self._grace.may_reap(time.monotonic()):
            touched = await self._store.reap(
                self._leadership, dispatch_ttl_s=self._timing.dispatch_ttl_s, max_losses=self._timing.max_losses
            )
        for ref in touched:
            self._log.warning("lease expired", extra=ref.named)
            self._metrics.events.inc(tags={"event": "lease_expired"})
        if touched or not led:
            self._work.tell()
        await self._forget_ended()
        if self._is_due("sweep", SWEEP_S):
            await self._sweeper.sweep()
        if self._is_due("cache", CACHE_S) and (swept := await self._cache_sweeper.sweep()) is not None:
            self._cached_nbytes = swept.nbytes
            self._metrics.cache_evictions.inc(swept.evicted)
        if self._is_due("orphans", ORPHANS_S):
            await self._sweeper.sweep_orphans()
        if self._is_due("placement", PLACEMENT_S):
            await self._look_at_placement()
        if self._is_due("metrics", METRICS_S):
            self._metrics.cache_nbytes.set(self._cached_nbytes)
            state = await self._store.state(worker_ttl_s=self._timing.lease_ttl_s)
            self._metrics.cluster.tell(state, await self._store.count_jobs(), await self._store.backlog())

    async def _look_at_placement(self) -> None:
        """Says once what Ray would wait for in silence."""
        known, self._misplaced = self._misplaced, await find_misplaced(self._pools)
        for pool in self._misplaced.keys() - known.keys():
            self._log.error("%s", self._misplaced[pool], extra={"pool": pool})
            self._metrics.events.inc(tags={"event": "misplaced"})

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
            refs = [] if self._paused else plan(state, limits=self._limits)
        if refs:
            await self._dispatch(leadership, state, refs, laps)

    async def _dispatch(
        self, leadership: Leadership, state: ClusterState, refs: Sequence[StageRef], laps: Laps
    ) -> None:
        with laps.lap("dispatch"):
            calls = await self._store.dispatch(leadership, refs)
        ready = {item.ref: item for item in state.ready}
        replicas = Counter(stage for worker in state.workers for stage in worker.slots)
        models = homes(state, [call.ref for call in calls]) if self._scarce else {}
        for call in calls:
            item = ready[call.ref]
            spread = replicas[call.ref.stage] > 1
            model = models.get(call.ref)
            sending = self._send(call, graph(item.graph, item.results), spread=spread, model=model)
            task = asyncio.create_task(sending)
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        counted = [(call, ready[call.ref].ready_at) for call in calls]
        asyncio.get_running_loop().call_later(COUNT_AFTER_S, self._count, counted, state.now, now_ns(), laps)

    def _count(self, calls: Sequence[tuple[StageCall, datetime]], now: datetime, sent_ns: int, laps: Laps) -> None:
        """A moment after the calls: Serve sends them from another thread, which would wait for this one."""
        for call, ready_at in calls:
            tags = {"stage": call.ref.stage}
            self._metrics.dispatched.inc(tags=tags)
            self._metrics.queue_seconds.observe((now - ready_at).total_seconds(), tags=tags)
            self._trace(call, "queue", at_ns(ready_at), None, ended_ns=sent_ns)
        self._metrics.boundary.observe(laps)
        traces = sorted({call.trace.id for call, _ in calls if call.trace is not None})
        told = {"calls": [str(call.ref) for call, _ in calls], "trace_ids": traces, **laps.told()}
        self._log.info("dispatched", extra=told)

    async def _send(self, call: StageCall, stages: StageGraph, *, spread: bool, model: str | None) -> None:
        """One stage call; the answer is only an ack. A dead worker is reported at once instead of after its lease."""
        with bound(**call.named, epoch=call.epoch):
            began_ns, lost = now_ns(), ""
            try:
                self._note(call, stages, await self._call(call, spread=spread, model=model))
            except (RayError, RayServeException) as error:
                self._log.warning("worker lost: %s", type(error).__name__)
                self._metrics.lost.inc(tags={"stage": call.ref.stage})
                self._metrics.events.inc(tags={"event": "call_lost"})
                lost = "worker_lost"
                await self._lose(call)
            finally:
                self._work.tell()
                self._trace(call, "call", began_ns, lost or None)

    def _trace(self, call: StageCall, what: str, began_ns: int, error: str | None, ended_ns: int | None = None) -> None:
        name, attributes = f"{what} {call.ref.stage}", {**call.ref.named, "epoch": call.epoch}
        self._tracer.span(
            call.trace,
            f"{call.span}/{what}",
            name,
            began_ns,
            parent=call.ref.job_id,
            ended_ns=ended_ns,
            error=error,
            attributes=attributes,
        )

    async def _call(self, call: StageCall, *, spread: bool, model: str | None) -> Ack:
        """Sends it to the replica that Serve chooses. Where there are several (`spread`), one call after the other
        takes its place first: calls sent at once would not know of each other, and two of them meet in one replica
        while another is free. With a `model`, a replica that holds it is asked first.
        """
        handle = self._handles[call.ref.stage]
        run = (handle if model is None else handle.options(multiplexed_model_id=model)).run
        message, hints = encode(call), self._hints.of(call.ref)
        if not spread:
            return cast(Ack, await run.remote(message, hints))
        async with AsyncExitStack() as held:
            async with self._turns[call.ref.stage]:
                place = await held.enter_async_context(run.choose_replica())
            return cast(Ack, await run.dispatch(place, message, hints))

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
