"""The generic stage replica: hosts one or several stages and runs their calls under the lease protocol."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from opentelemetry.trace import SpanKind

from cluster.config import Config
from cluster.errors import StageError, StaleEpoch, Unavailable
from cluster.pools import DENOISE, Pool
from cluster.records import Failure, StageCall, StageWork, Verdict, Worker, decode
from cluster.serve_config import HEALTH_PERIOD_S
from cluster.store import open_store
from deployments import group
from deployments.artifacts import ArtifactStore
from deployments.call import Call, HandedBack, Stage
from deployments.drain import DrainWatch, stopping_here
from deployments.group.controller import Told
from deployments.hints import Ack, Hints
from deployments.homes import announcer, scarce
from deployments.leases import Lease, LeaseKeeper, Revoked
from deployments.scratch import Scratch
from deployments.telemetry import Laps, StageMetrics, StoreMetrics, bound, logger
from deployments.tracing import TracedStore, Tracer, now_ns

RELEASED = "released"


async def load_stages(
    config: Config, pool: Pool, artifacts: ArtifactStore, log: logging.Logger, told: Told
) -> dict[str, Stage]:
    """Makes every stage of a pool ready to run; only their weights live in the process. `told` learns which models a
    group of ranks holds, whenever one is used.
    """
    stages: dict[str, Stage] = {}
    grouped = {*pool.grouped, *({DENOISE} & set(pool.stages))}
    if set(pool.stages) - grouped:
        from deployments.stages import load  # noqa: PLC0415 (a replica that only controls ranks needs no torch)

        stages |= await asyncio.to_thread(load, config, pool, artifacts)
    if grouped:
        stages |= await group.start(config, pool, log, told)
    return stages


class StageReplica:
    """One Serve replica of a pool. `run` is idempotent: whoever loses the claim acks and does nothing."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, config: Config, pool: Pool
    ) -> None:
        self._config = config
        self._pool = pool
        self._log = logger()
        self._metrics = StageMetrics(pool.stages)
        self._id = f"{pool.name}-{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._tracer = Tracer(config.tracing, pool.name)
        self._store = open_store(config.store_url, TracedStore(self._tracer, StoreMetrics(config.served, pool.stages)))
        await self._store.open()
        self._artifacts = ArtifactStore.of(config)
        await self._artifacts.sweep_temp()
        self._scratch = Scratch(config.state_path / "scratch")
        self._announce = announcer(config) if scarce(config) else None
        self._loaded: tuple[str, ...] = ()
        self._retired = True
        began = time.monotonic()
        self._stages = await load_stages(config, pool, self._artifacts, self._log, self._holds)
        seconds = time.monotonic() - began
        self._log.info("stages ready", extra={"pool": pool.name, "seconds": round(seconds, 3)})
        self._metrics.load_seconds.observe(seconds, tags={"pool": pool.name, "cause": "start"})
        self._slots = {name: asyncio.Semaphore(pool.slots_of(name)) for name in pool.stages}
        await self._register()
        self._keeper = LeaseKeeper(self._store, self._id, config.scheduler, self._log)
        self._keeper.start()
        self._drain = DrainWatch(stopping_here, self._drained, period_s=HEALTH_PERIOD_S, grace_s=pool.drain_s)
        self._watch = asyncio.create_task(self._drain.run())

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        self._metrics.cache.tell()
        await self._drain.seen()
        if not self._keeper.healthy:
            raise RuntimeError("the heartbeat loop has ended")
        if self._watch.done():
            raise RuntimeError("the watch for drains has ended")
        for name, stage in self._stages.items():
            if stage.ailment is not None:
                raise RuntimeError(f"stage {name}: {stage.ailment}")

    async def __del__(self) -> None:
        self._watch.cancel()
        await self._keeper.close()
        for stage in self._stages.values():
            await stage.close()
        await self._retire()
        await self._store.close()
        await asyncio.to_thread(self._tracer.close)

    async def _register(self) -> None:
        """The Scheduler may send calls."""
        if self._retired:
            await self._write_row()
            self._retired = False

    async def _write_row(self) -> None:
        now = await self._store.now()
        slots = {name: self._pool.slots_of(name) for name in self._pool.stages}
        await self._store.register(
            Worker(self._id, self._pool.name, slots, platform.node(), os.getpid(), now, now, self._loaded)
        )

    async def _holds(self, models: Sequence[str]) -> None:
        """A group of ranks has these models loaded and uses the last one now. Hints for calls and for readers."""
        if self._announce is not None:
            await self._announce(models[-1])
        known, self._loaded = self._loaded, tuple(sorted(models))
        if known != self._loaded and not self._retired:
            try:
                await self._write_row()
            except Unavailable as error:
                self._log.warning("what is loaded is not recorded: %s", error)

    async def _retire(self) -> None:
        """The Scheduler sends no more calls; those that run go on."""
        if not self._retired:
            self._retired = True
            try:
                await self._store.unregister(self._id)
            except Unavailable as error:
                self._log.warning("could not unregister: %s", error)

    async def _drained(self, kill_s: float | None) -> None:
        """Serve stops this replica, or does not after all."""
        self._log.info("draining" if kill_s is not None else "not draining after all")
        await (self._register() if kill_s is None else self._retire())
        for stage in self._stages.values():
            stage.drain(kill_s)

    async def run(self, message: dict[str, Any], hints: Hints) -> Ack:
        """Runs one stage call; the answer is an ack that says what became of it and carries the outputs' hints.

        `hints` are those of the inputs, in a mapping, so that Ray sends the references and no values.
        """
        call = decode(StageCall, message)
        laps = Laps()
        async with self._slots[call.ref.stage]:
            if self._retired:
                # Sent before the Scheduler knew. Nobody has claimed it, so nothing is counted.
                reason = Failure("worker_lost", f"The worker of stage {call.ref.stage} stops.")
                await self._store.lose(call, reason, max_losses=self._config.scheduler.max_losses)
                return Ack(RELEASED)
            began = time.perf_counter()
            async with self._keeper.claimed(call, self._pool.devices_of(call.ref.stage)) as lease:
                if lease is None:
                    return Ack("not claimed")
                laps.add("claim", time.perf_counter() - began)
                with bound(**call.named, attempt=lease.work.attempt):
                    return await self._supervise(lease, hints, laps)

    async def _supervise(self, lease: Lease, hints: Hints, laps: Laps) -> Ack:
        """The one place where any error of a job's work ends: it fails that job, never the replica."""
        began, began_ns = time.monotonic(), now_ns()
        ack = Ack("done")
        try:
            ack = await self._work(lease, hints, laps)
        except Revoked as revoked:
            ack = Ack(revoked.verdict.value)
        except StaleEpoch:
            ack = Ack(Verdict.STALE.value)
        except HandedBack:
            await self._retire()
            ack = Ack(await self._release(lease))
        except Unavailable as error:
            ack = Ack(await self._postpone(lease, error))
        except Exception as error:  # noqa: BLE001 (the supervisor boundary)
            ack = Ack(await self._fail(lease, error))
        # The next stage waits for the ack, so it goes out before anything is counted.
        asyncio.get_running_loop().call_soon(self._count, lease, ack.outcome, time.monotonic() - began, began_ns, laps)
        return ack

    def _count(self, lease: Lease, outcome: str, seconds: float, began_ns: int, laps: Laps) -> None:
        stage = lease.work.call.ref.stage
        if outcome == "done":
            tags = {"stage": stage, "model": lease.work.request.model}
            self._metrics.stage_seconds.observe(seconds, tags=tags)
            self._metrics.boundary.observe(laps)
        spent = {"seconds": round(seconds, 4), "busy_s": round(lease.busy_s, 5)}
        self._trace(lease.work, began_ns, outcome, laps)
        self._log.info("stage ended", extra={"outcome": outcome, **spent, **laps.told()})

    def _trace(self, work: StageWork, began_ns: int, outcome: str, laps: Laps) -> None:
        self._tracer.span(
            work.call.trace,
            work.call.span,
            work.call.ref.stage,
            began_ns,
            parent=work.call.ref.job_id,
            error=None if outcome == "done" else outcome,
            kind=SpanKind.CONSUMER,
            attributes={
                **work.call.ref.named,
                "attempt": work.attempt,
                "model": work.request.model,
                "resolution": work.request.resolution,
                "worker": self._id,
                **laps.told(),
            },
        )

    async def _work(self, lease: Lease, hints: Hints, laps: Laps) -> Ack:
        stage = lease.work.call.ref.stage
        with self._scratch.folder(str(lease.work.call.ref).replace("/", "-")) as folder:
            call = Call(lease, self._store, self._artifacts, self._metrics, folder, hints, laps)
            result = await self._stages[stage].run(call)
            lease.check()
        with laps.lap("complete"):
            await self._record(
                lambda: self._store.complete(
                    lease.work.call,
                    result.handles,
                    result.artifact,
                    busy_s=lease.busy_s,
                    extension=result.extension,
                )
            )
        nbytes = sum(handle.nbytes for handle in result.handles.values() if handle.key in result.hints)
        return Ack("done", result.hints, nbytes)

    async def _release(self, lease: Lease) -> str:
        """Undone work goes back; nothing is counted."""
        try:
            await self._record(lambda: self._store.release(lease.work.call, busy_s=lease.busy_s))
        except StaleEpoch:
            return Verdict.STALE.value
        return RELEASED

    async def _postpone(self, lease: Lease, error: Unavailable) -> str:
        """A store is away, which is not the job's fault: another attempt follows, for as long as the job may run. The
        pause keeps it from coming at once.
        """
        self._log.warning("stage postponed: %s", error)
        await asyncio.sleep(error.retry_after_s)
        return await self._release(lease)

    async def _record(self, write: Callable[[], Awaitable[None]]) -> None:
        """A finished piece of work outlives an outage of the store: it is recorded when the store is back."""
        while True:
            try:
                return await write()
            except Unavailable as error:
                self._log.warning("result not recorded yet: %s", error)
                await asyncio.sleep(error.retry_after_s)

    async def _fail(self, lease: Lease, error: Exception) -> str:
        failure, retryable = classify(error)
        self._log.error("stage failed", exc_info=error, extra={"code": failure.code})
        self._metrics.stage_failures.inc(tags={"stage": lease.work.call.ref.stage, "code": failure.code})
        try:
            limit = self._config.scheduler.max_failures
            await self._record(
                lambda: self._store.fail(
                    lease.work.call, failure, retryable=retryable, max_failures=limit, busy_s=lease.busy_s
                )
            )
        except StaleEpoch:
            return Verdict.STALE.value
        return failure.code


def classify(error: Exception) -> tuple[Failure, bool]:
    """What a client is told of an error, and whether another attempt can help."""
    if isinstance(error, StageError):
        return Failure(error.code, error.message), error.retryable
    what = f"The work failed with {type(error).__name__}; the operator's log has the details."
    return Failure("generation_failed", what), True
