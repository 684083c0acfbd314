"""Queries that end in records. Each is bounded by what it returns, never by the size of the history."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, func, select

from cluster.errors import NotFound
from cluster.records import (
    TERMINAL_STATES,
    Artifact,
    Event,
    Extension,
    Failure,
    Job,
    JobState,
    Request,
    Result,
    StageCall,
    StageRef,
    StageState,
    StageStatus,
    Verdict,
    decode,
)
from cluster.store.accounts import charges
from cluster.store.base import Page
from cluster.store.database import Transaction
from cluster.store.ledger import missing
from cluster.store.rows import verdict
from cluster.store.schema import VISIBLE, events, jobs, results, stages, tasks
from cluster.tenancy import MICRO

_STATUS = (
    "stage", "result", "chunk", "state", "attempt", "step", "steps", "ready_at", "dispatched_at", "claimed_at",
    "done_at", "worker",
)  # fmt: skip
_JOB = (
    "id", "tenant_id", "graph", "phase", "progress", "created_at", "started_at", "finished_at", "expires_at",
)  # fmt: skip
_BATCH = 500
_CHARGED = select(func.sum(charges.c.micro_usd)).where(charges.c.job_id == jobs.c.id).scalar_subquery()
_JOB_QUERY = select(
    *(jobs.c[name] for name in (*_JOB, "number", "state", "request", "failure", "extension")), _CHARGED.label("charged")
)


async def read_job(tx: Transaction, job_id: str, tenant_id: str) -> Job:
    """One visible job. NotFound."""
    found = await read_jobs(tx, _JOB_QUERY.where(jobs.c.id == job_id, visible(tenant_id)))
    if not found:
        raise missing(job_id)
    return found[0]


async def read_task(tx: Transaction, task_id: str, tenant_id: str) -> Job:
    """The visible job that the tenant calls so. NotFound."""
    named = select(tasks.c.job_id).where(tasks.c.tenant_id == tenant_id, tasks.c.task_id == task_id.lower())
    found = await read_jobs(tx, _JOB_QUERY.where(jobs.c.id == named.scalar_subquery(), visible(tenant_id)))
    if not found:
        raise NotFound(f"Task {task_id} does not exist.")
    return found[0]


async def read_living(tx: Transaction, job_ids: Collection[str]) -> set[str]:
    """Those that have not ended."""
    query = select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.state.not_in([s.value for s in TERMINAL_STATES]))
    return set((await tx.conn.execute(query)).scalars())


async def read_jobs(tx: Transaction, query: Select[Any]) -> list[Job]:
    """The jobs of a query in its order, with their stages and results."""
    rows = (await tx.conn.execute(query)).mappings().all()
    ids = [row["id"] for row in rows]
    parts = select(stages.c.job_id, *(stages.c[name] for name in _STATUS)).where(stages.c.job_id.in_(ids))
    by_job: dict[str, list[StageStatus]] = {job_id: [] for job_id in ids}
    for part in (await tx.conn.execute(parts.order_by(stages.c.job_id, stages.c.position))).mappings():
        status = {name: part[name] for name in _STATUS} | {"state": StageState(part["state"])}
        by_job[part["job_id"]].append(StageStatus(**status))
    published = select(results.c.job_id, results.c.index, results.c.artifact).where(results.c.job_id.in_(ids))
    files: dict[str, dict[int, Artifact]] = {job_id: {} for job_id in ids}
    for made in (await tx.conn.execute(published)).mappings():
        files[made["job_id"]][made["index"]] = decode(Artifact, made["artifact"])
    return [_job(row, by_job[row["id"]], files[row["id"]]) for row in rows]


def _job(row: RowMapping, statuses: Sequence[StageStatus], files: Mapping[int, Artifact]) -> Job:
    request = decode(Request, row["request"])
    return Job(
        **{name: row[name] for name in _JOB},
        state=JobState(row["state"]),
        request=request,
        failure=None if row["failure"] is None else decode(Failure, row["failure"]),
        extension=None if row["extension"] is None else decode(Extension, row["extension"]),
        results=tuple(Result(index, request.seed_of(index), files.get(index)) for index in range(request.n)),
        attempts=sum(max(status.attempt - 1, 0) for status in statuses),
        stages=tuple(statuses),
        cost_usd=Decimal(int(row["charged"] or 0)) / MICRO,
    )


async def read_page(
    tx: Transaction, tenant_id: str, *, after: str | None, limit: int, newest_first: bool, states: Sequence[JobState]
) -> Page:
    """One page by creation number. Each state is read along its own index and the heads are merged, so that a rare
    state is found without walking the others. A deleted job may still be `after`: its number stays. NotFound.
    """
    start = None
    if after is not None:
        query = select(jobs.c.number).where(jobs.c.id == after, jobs.c.tenant_id == tenant_id)
        start = (await tx.conn.execute(query)).scalar_one_or_none()
        if start is None:
            raise missing(after)
    order = jobs.c.number.desc() if newest_first else jobs.c.number.asc()
    numbers: list[int] = []
    each: Sequence[JobState | None] = sorted(set(states)) or [None]
    for state in each:
        query = select(jobs.c.number).where(visible(tenant_id)).order_by(order).limit(limit + 1)
        if state is not None:
            query = query.where(jobs.c.state == state.value)
        if start is not None:
            query = query.where(jobs.c.number < start if newest_first else jobs.c.number > start)
        numbers.extend((await tx.conn.execute(query)).scalars())
    numbers.sort(reverse=newest_first)
    found = await read_jobs(tx, _JOB_QUERY.where(jobs.c.number.in_(numbers[:limit])).order_by(order))
    return Page(found, has_more=len(numbers) > limit)


async def read_unknown(tx: Transaction, job_ids: Sequence[str]) -> list[str]:
    """The ids without a row, in their order; asked in batches, as a statement takes only so many values."""
    unknown: list[str] = []
    for start in range(0, len(job_ids), _BATCH):
        batch = job_ids[start : start + _BATCH]
        known = set((await tx.conn.execute(select(jobs.c.id).where(jobs.c.id.in_(batch)))).scalars())
        unknown += [job_id for job_id in batch if job_id not in known]
    return unknown


async def read_counts(tx: Transaction, tenant_id: str | None) -> Mapping[JobState, int]:
    """Visible jobs by state, zeros included."""
    mine = VISIBLE if tenant_id is None else visible(tenant_id)
    query = select(jobs.c.state, func.count()).where(mine).group_by(jobs.c.state)
    found = {row[0]: row[1] for row in (await tx.conn.execute(query)).all()}
    return {state: found.get(state.value, 0) for state in JobState}


async def read_events(tx: Transaction, job_id: str, tenant_id: str, after: int) -> Sequence[Event]:
    """The log of a visible job. NotFound."""
    known = select(jobs.c.id).where(jobs.c.id == job_id, visible(tenant_id))
    if (await tx.conn.execute(known)).scalar_one_or_none() is None:
        raise missing(job_id)
    query = select(events).where(events.c.job_id == job_id, events.c.seq > after).order_by(events.c.seq)
    return [Event(**row) for row in (await tx.conn.execute(query)).mappings()]


async def read_verdicts(tx: Transaction, calls: Sequence[StageCall]) -> Mapping[StageRef, Verdict]:
    """What each call's holder must do; a stage that does not exist is STALE."""
    ids = {call.ref.job_id for call in calls}
    chunks = {call.ref.chunk for call in calls}  # a long chain has hundreds of rows
    names = ("job_id", "stage", "chunk", "result", "state", "epoch")
    query = select(*(stages.c[name] for name in names))
    rows = (await tx.conn.execute(query.where(stages.c.job_id.in_(ids), stages.c.chunk.in_(chunks)))).all()
    known = {StageRef(*row[:4]): (StageState(row.state), row.epoch) for row in rows}
    return {call.ref: verdict(*known[call.ref], call.epoch) if call.ref in known else Verdict.STALE for call in calls}


def visible(tenant_id: str) -> ColumnElement[bool]:
    """A tenant's jobs that are not deleted."""
    return (jobs.c.tenant_id == tenant_id) & VISIBLE
