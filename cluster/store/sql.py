"""The job store on a SQL database: each method of the contract is one transaction."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from cluster.errors import ConfigError
from cluster.files import FilePage, NewFile, UploadedFile
from cluster.graphs import StageGraph
from cluster.records import (
    Artifact,
    Beat,
    Event,
    Extension,
    Failure,
    Handle,
    Job,
    JobState,
    Request,
    SegmentFile,
    StageCall,
    StageRef,
    StageWork,
    Verdict,
    Worker,
)
from cluster.store import clients, files, leases, outbox, reading, scheduling, segments
from cluster.store.base import ClusterState, JobStore, Leadership, Page, RunningStage, Workload
from cluster.store.database import Database, Transaction
from cluster.store.dialect import Dialect
from cluster.store.ledger import load
from cluster.store.lifecycle import Lifecycle
from cluster.store.news import POLL_S, Topic, Watch
from cluster.store.observer import Observer
from cluster.store.postgres import Postgres
from cluster.store.sql_outbox import SqlOutbox
from cluster.store.sqlite import Sqlite
from cluster.store.tenancy import SqlTenancy
from cluster.store.workload import read_workload
from cluster.tenancy import UNLIMITED, Limits, Once, TenantLimits

_DIALECTS: Mapping[str, Callable[[URL], Dialect]] = {"sqlite+aiosqlite": Sqlite, "postgresql+asyncpg": Postgres}


def open_store(url: str, observer: Observer | None = None) -> JobStore:
    """The job store at a URL; `await store.open()` connects it. ConfigError."""
    return SqlJobStore(database_at(url, observer))


def database_at(url: str, observer: Observer | None = None) -> Database:
    """The database at a URL, not yet open.

    Raises:
        ConfigError: the URL names no database that the store can live in.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # without its cause, which may quote the password
        raise ConfigError("store.url: not a database URL; use one like sqlite+aiosqlite:////data/jobs.db.") from None
    dialect = _DIALECTS.get(parsed.drivername)
    if dialect is None:
        known = ", ".join(_DIALECTS)
        raise ConfigError(f"store.url: {parsed.drivername!r} is not supported; the URL must begin with {known}.")
    return Database(dialect(parsed), observer)


class SqlJobStore(SqlOutbox, SqlTenancy):
    """`JobStore` over SQLAlchemy Core."""

    # -- lifecycle ---------------------------------------------------------------------------------------------
    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def now(self) -> datetime:
        async with self._database.read() as tx:
            return tx.now

    def watch(self, topic: Topic, *, key: str | None = None, poll_s: float = POLL_S) -> Watch:
        return self._database.watch(topic, key=key, poll_s=poll_s)

    # -- clients -----------------------------------------------------------------------------------------------
    async def create_job(
        self,
        job_id: str,
        tenant_id: str,
        request: Request,
        graph: StageGraph,
        *,
        expires_at: datetime | None = None,
        once: Once | None = None,
        limits: TenantLimits = UNLIMITED,
        price_usd: Decimal = Decimal(0),
    ) -> Job:
        async with self._database.write() as tx:
            return await clients.create(
                tx,
                job_id,
                tenant_id,
                request,
                graph,
                expires_at=expires_at,
                once=once,
                limits=limits,
                price_usd=price_usd,
            )

    async def get_job(self, job_id: str, tenant_id: str) -> Job:
        async with self._database.read() as tx:
            return await reading.read_job(tx, job_id, tenant_id)

    async def find_task(self, task_id: str, tenant_id: str) -> Job:
        async with self._database.read() as tx:
            return await reading.read_task(tx, task_id, tenant_id)

    async def list_jobs(
        self,
        tenant_id: str,
        *,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
        states: Sequence[JobState] = (),
    ) -> Page:
        async with self._database.read() as tx:
            return await reading.read_page(
                tx, tenant_id, after=after, limit=limit, newest_first=newest_first, states=states
            )

    async def cancel_job(self, job_id: str, tenant_id: str, *, reason: Failure | None = None) -> Job:
        async with self._database.write() as tx:
            await self._cancel(tx, job_id, tenant_id, reason)
            return await reading.read_job(tx, job_id, tenant_id)

    async def delete_job(self, job_id: str, tenant_id: str) -> Job:
        async with self._database.write() as tx:
            await self._cancel(tx, job_id, tenant_id, None)
            job = await reading.read_job(tx, job_id, tenant_id)
            await clients.hide(tx, job_id)
            return job

    async def count_jobs(self, tenant_id: str | None = None) -> Mapping[JobState, int]:
        async with self._database.read() as tx:
            return await reading.read_counts(tx, tenant_id)

    async def events(self, job_id: str, tenant_id: str, *, after: int = 0) -> Sequence[Event]:
        async with self._database.read() as tx:
            return await reading.read_events(tx, job_id, tenant_id, after)

    async def segments(self, job_id: str, tenant_id: str, result: int = 0) -> Mapping[int, Sequence[SegmentFile]]:
        async with self._database.read() as tx:
            return await segments.read(tx, job_id, tenant_id, result)

    # -- clients' files ----------------------------------------------------------------------------------------
    async def create_file(self, tenant_id: str, file: NewFile) -> UploadedFile:
        async with self._database.write() as tx:
            return await files.create(tx, tenant_id, file)

    async def get_file(self, file_id: str, tenant_id: str) -> UploadedFile:
        async with self._database.read() as tx:
            return await files.read(tx, file_id, tenant_id)

    async def list_files(
        self,
        tenant_id: str,
        *,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
        purpose: str | None = None,
    ) -> FilePage:
        async with self._database.read() as tx:
            return await files.read_page(
                tx, tenant_id, after=after, limit=limit, newest_first=newest_first, purpose=purpose
            )

    async def delete_file(self, file_id: str, tenant_id: str) -> None:
        async with self._database.write() as tx:
            await files.delete(tx, file_id, tenant_id)

    async def sweepable_files(self, *, limit: int = 64) -> Sequence[str]:
        async with self._database.read() as tx:
            return await files.read_sweepable(tx, limit)

    async def swept_file(self, file_id: str) -> None:
        async with self._database.write() as tx:
            await files.mark_swept(tx, file_id)

    async def unknown_files(self, file_ids: Sequence[str]) -> Sequence[str]:
        async with self._database.read() as tx:
            return await files.read_unknown(tx, file_ids)

    # -- the Scheduler -----------------------------------------------------------------------------------------
    async def lead(self, owner: str, ttl_s: float) -> Leadership | None:
        async with self._database.write() as tx:
            return await scheduling.lead(tx, owner, ttl_s)

    async def resign(self, leadership: Leadership) -> None:
        async with self._database.write() as tx:
            await scheduling.resign(tx, leadership)

    async def state(self, *, worker_ttl_s: float, ready_limit: int = 256, limits: Limits | None = None) -> ClusterState:
        async with self._database.read() as tx:
            return await scheduling.read_state(tx, worker_ttl_s, ready_limit, limits or Limits())

    async def workload(self, *, worker_ttl_s: float) -> Workload:
        async with self._database.read() as tx:
            return await read_workload(tx, worker_ttl_s)

    async def running(self, *, tenant_id: str | None = None, limit: int = 256) -> Sequence[RunningStage]:
        async with self._database.read() as tx:
            return await scheduling.read_running(tx, tenant_id, limit)

    async def dispatch(self, leadership: Leadership, refs: Sequence[StageRef]) -> Sequence[StageCall]:
        async with self._database.write(durable=False) as tx:
            await scheduling.fence(tx, leadership)
            ledger = await load(tx, {ref.job_id for ref in refs})
            calls = [ledger.lives[ref.job_id].dispatch(ref) for ref in refs if ref.job_id in ledger.lives]
            await ledger.save(tx)
            return [call for call in calls if call is not None]

    async def lose(self, call: StageCall, reason: Failure, *, max_losses: int) -> None:
        async with self._database.write() as tx:
            ledger = await load(tx, [call.ref.job_id])
            for life in ledger.lives.values():
                life.lose(call, reason, max_losses)
            await ledger.save(tx)

    async def reap(self, leadership: Leadership, *, dispatch_ttl_s: float, max_losses: int) -> Sequence[StageRef]:
        async with self._database.write() as tx:
            await scheduling.fence(tx, leadership)
            ledger = await load(tx, await scheduling.read_overdue(tx, dispatch_ttl_s), wait=False)
            touched = [ref for life in ledger.lives.values() for ref in life.reap(dispatch_ttl_s, max_losses)]
            await ledger.save(tx)
            return touched

    async def living(self, job_ids: Collection[str]) -> Set[str]:
        async with self._database.read() as tx:
            return await reading.read_living(tx, job_ids)

    async def fail_job(self, leadership: Leadership, job_id: str, failure: Failure) -> None:
        async with self._database.write() as tx:
            await scheduling.fence(tx, leadership)
            ledger = await load(tx, [job_id])
            life = ledger.one(job_id)
            if not life.job.state.terminal:
                life.end(JobState.FAILED, failure)
            await ledger.save(tx)

    async def sweepable(self, *, keep_s: float, limit: int = 64) -> Sequence[tuple[str, bool]]:
        async with self._database.read() as tx:
            return await scheduling.read_sweepable(tx, keep_s, limit)

    async def result_uris(self, job_id: str) -> Set[str]:
        async with self._database.read() as tx:
            return await segments.read_result_uris(tx, job_id)

    async def unknown_jobs(self, job_ids: Sequence[str]) -> Sequence[str]:
        async with self._database.read() as tx:
            return await reading.read_unknown(tx, job_ids)

    async def swept(self, job_id: str, *, results: bool) -> None:
        async with self._database.write() as tx:
            await scheduling.mark_swept(tx, job_id, results)
            if results:
                await segments.forget(tx, job_id)
                await outbox.forget_settled(tx, job_id)

    # -- workers -----------------------------------------------------------------------------------------------
    async def register(self, worker: Worker) -> None:
        async with self._database.write() as tx:
            await leases.register(tx, worker)

    async def unregister(self, worker_id: str) -> None:
        async with self._database.write() as tx:
            await leases.unregister(tx, worker_id)

    async def claim(self, call: StageCall, worker_id: str, lease_s: float, *, devices: int = 1) -> StageWork | None:
        async with self._database.write(durable=False) as tx:
            return await leases.claim(tx, call, worker_id, lease_s, devices)

    async def heartbeat(self, worker_id: str, beats: Sequence[Beat], lease_s: float) -> Mapping[StageRef, Verdict]:
        async with self._database.write() as tx:
            return await leases.heartbeat(tx, worker_id, beats, lease_s)

    async def verdicts(self, calls: Sequence[StageCall]) -> Mapping[StageRef, Verdict]:
        async with self._database.read() as tx:
            return await reading.read_verdicts(tx, calls)

    async def save_snapshot(self, call: StageCall, snapshot: Handle, step: int, *, busy_s: float = 0.0) -> None:
        async with self._owned(call) as life:
            life.save_snapshot(call, snapshot, step, busy_s)

    async def add_segment(self, call: StageCall, segment: SegmentFile) -> None:
        async with self._database.write() as tx:
            await segments.add(tx, call, segment)

    async def complete(
        self,
        call: StageCall,
        outputs: Mapping[str, Handle],
        artifact: Artifact | None = None,
        *,
        busy_s: float = 0.0,
        extension: Extension | None = None,
    ) -> None:
        # A power cut that takes a value's row costs that work once more; a result is never taken back.
        async with self._owned(call, durable=artifact is not None) as life:
            life.complete(call, outputs, artifact, busy_s, extension)

    async def fail(
        self, call: StageCall, failure: Failure, *, retryable: bool, max_failures: int, busy_s: float = 0.0
    ) -> None:
        async with self._owned(call) as life:
            life.fail(call, failure, retryable, max_failures, busy_s)

    async def release(self, call: StageCall, *, busy_s: float = 0.0) -> None:
        async with self._owned(call) as life:
            life.release(call, busy_s)

    # -- inside ------------------------------------------------------------------------------------------------
    async def _cancel(self, tx: Transaction, job_id: str, tenant_id: str, reason: Failure | None) -> None:
        ledger = await load(tx, [job_id])
        await clients.check_visible(tx, job_id, tenant_id)
        life = ledger.one(job_id)
        if not life.job.state.terminal:
            life.end(JobState.CANCELLED, reason)
        await ledger.save(tx)

    @asynccontextmanager
    async def _owned(self, call: StageCall, *, durable: bool = True) -> AsyncGenerator[Lifecycle]:
        """A worker's write on its stage; the lifecycle checks the epoch. StaleEpoch."""
        async with self._database.write(durable=durable) as tx:
            ledger = await load(tx, [call.ref.job_id])
            yield ledger.owner(call)
            await ledger.save(tx)
