"""Serve's autoscaling policy of the application: the store's workload in, targets of all pools out.

Serve's controller calls it several times a second, in its own event loop, so nothing here may wait. A thread reads the
job store, one reading at a time, started by the calls themselves; a call decides on the newest reading. While there is
none, or it is too old, every pool keeps its size.

This module travels to the controller by value and is made anew there with every change of the policy; the thread of the
former one ends with it.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cluster.errors import SkyreelsError
from cluster.policy.autoscale import Decision, PoolSize, StageLoad, autoscale
from cluster.store import open_store
from cluster.store.base import JobStore, Workload
from deployments.cluster_metrics import AutoscaleMetrics
from deployments.telemetry import logger

STALE_PERIODS = 10  # a reading this old decides nothing any more
_Targets = tuple[dict[Any, int], dict[Any, dict[str, Any]]]


class _Session:
    """A job store and the event loop it lives in; of one thread."""

    def __init__(self, store_url: str, worker_ttl_s: float) -> None:
        self._store_url = store_url
        self._worker_ttl_s = worker_ttl_s
        self._loop: asyncio.Runner | None = None
        self._store: JobStore | None = None

    def read(self) -> Workload:
        self._loop = self._loop or asyncio.Runner()
        return self._loop.run(self._workload())

    def close(self) -> None:
        if self._loop is not None:
            if self._store is not None:
                self._loop.run(self._store.close())
            self._loop.close()

    async def _workload(self) -> Workload:
        if self._store is None:
            store = open_store(self._store_url)
            await store.open()
            self._store = store
        return await self._store.workload(worker_ttl_s=self._worker_ttl_s)


class WorkloadReader:
    """The newest workload of a job store, read in a thread of its own. The thread and the store end with the reader."""

    def __init__(self, store_url: str, *, worker_ttl_s: float, period_s: float) -> None:
        self._session = _Session(store_url, worker_ttl_s)
        self._period_s = period_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="workload")
        self._reading: Future[Workload] | None = None
        self._asked_s = -float("inf")
        self._newest: tuple[float, Workload] | None = None
        self._end = weakref.finalize(self, _end, self._thread, self._session)
        self._end.atexit = False  # no thread can be asked for anything then

    def newest(self, now_s: float) -> Workload | None:
        """At once: the last reading that is not too old, else None. Starts the next one when it is due. Raises what a
        reading raised, once.
        """
        if self._reading is not None and self._reading.done():
            reading, self._reading = self._reading, None
            self._newest = (now_s, reading.result())
        if self._reading is None and now_s - self._asked_s >= self._period_s:
            self._asked_s = now_s
            self._reading = self._thread.submit(self._session.read)
        if self._newest is None or now_s - self._newest[0] > STALE_PERIODS * self._period_s:
            return None
        return self._newest[1]

    def close(self) -> None:
        """Ends the thread and waits for it."""
        self._end()
        self._thread.shutdown()


def _end(thread: ThreadPoolExecutor, session: _Session) -> None:
    thread.submit(session.close)
    thread.shutdown(wait=False)


class StagePolicy:
    """Serve calls it with a context per scaled deployment and applies each one's bounds and delays to the answer."""

    def __init__(
        self,
        *,
        store_url: str,
        backlog_s: float,
        period_s: float,
        worker_ttl_s: float,
        pools: Sequence[Mapping[str, Any]],
        feeds: Sequence[Sequence[str]],
    ) -> None:
        self._reader = WorkloadReader(store_url, worker_ttl_s=worker_ttl_s, period_s=period_s)
        self._backlog_s = backlog_s
        self._pools = pools
        self._feeds = [(source, reader) for source, reader in feeds]
        self._devices = {stage: count for pool in pools for stage, count in pool["devices"].items()}
        self._last: dict[str, tuple[int, Decision]] = {}  # pool → its target in Serve, and what was decided then
        self._log = logger()
        self._metrics = AutoscaleMetrics()

    def __call__(self, contexts: Mapping[Any, Any]) -> _Targets:
        """Serve's contexts by deployment → targets by deployment, and no state."""
        try:
            workload = self._reader.newest(time.monotonic())
        except SkyreelsError as error:
            self._log.warning("not scaling: %s", error)
            workload = None
        if workload is None:
            return {key: context.target_num_replicas for key, context in contexts.items()}, {}
        decisions = self._decide(workload, {context.deployment_name: context for context in contexts.values()})
        for context in contexts.values():
            self._tell(context, decisions[context.deployment_name])
        targets = {key: decisions[context.deployment_name].target for key, context in contexts.items()}
        # A pool that is none and stays none is left out: Serve would start one for the mean of its past requests.
        stays = {key for key, context in contexts.items() if not targets[key] and not context.target_num_replicas}
        return {key: target for key, target in targets.items() if key not in stays}, {}

    def close(self) -> None:
        """Stops reading."""
        self._reader.close()

    def _decide(self, workload: Workload, contexts: Mapping[str, Any]) -> dict[str, Decision]:
        sizes: list[PoolSize] = []
        for pool in self._pools:
            name = pool["name"]
            if name in contexts:
                context = contexts[name]
                least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
            else:
                least = most = workload.replicas.get(name, 0)
            sizes.append(PoolSize(name, pool["slots"], least, most, pool["lanes"]))
        loads = [
            StageLoad(
                work.stage,
                work.ready,
                work.running,
                work.left,
                None if work.device_s is None else work.device_s / self._devices.get(work.stage, 1),
            )
            for work in workload.stages
        ]
        return autoscale(sizes, loads, self._feeds, backlog_s=self._backlog_s)

    def _tell(self, context: Any, decision: Decision) -> None:
        """Each change of a pool's target, with the decision that Serve has followed, after its delay."""
        target = context.target_num_replicas
        before, cause = self._last.get(decision.pool, (target, decision))
        self._last[decision.pool] = target, decision
        direction = "hold"
        if before != target:
            direction = "up" if target > before else "down"
            fields = {"pool": cause.pool, "cause": cause.cause.value, "wanted": cause.wanted}
            self._log.info("scaling %s from %d to %d: %s", cause.pool, before, target, cause.why, extra=fields)
        self._metrics.decided(
            pool=decision.pool,
            replicas=decision.target,
            direction=direction,
            why=(decision if direction == "hold" else cause).cause.value,
            backlog_s=decision.work_s,
        )
