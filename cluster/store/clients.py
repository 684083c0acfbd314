"""The clients' side of the job store: creating and deleting jobs. Everything else they do is a reading or an end."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from sqlalchemy import case, insert, select, update
from sqlalchemy.exc import IntegrityError

from cluster.errors import Conflict
from cluster.graphs import StageGraph
from cluster.records import Job, Request, encode
from cluster.store import idempotency, outbox
from cluster.store import limits as tenant_limits
from cluster.store.database import Transaction
from cluster.store.ledger import missing, plain, write_events
from cluster.store.lifecycle import Lifecycle
from cluster.store.reading import read_job, visible
from cluster.store.rows import JobRow, StageRow
from cluster.store.schema import END_OF_TIME, jobs, stages, tasks, tenants
from cluster.tenancy import MICRO, UNLIMITED, Once, TenantLimits


async def create(
    tx: Transaction,
    job_id: str,
    tenant_id: str,
    request: Request,
    graph: StageGraph,
    *,
    expires_at: datetime | None,
    once: Once | None,
    limits: TenantLimits,
    price_usd: Decimal,
) -> Job:
    """Writes job, stages and first events. Conflict when the id or the caller's name of it is taken, LimitExceeded."""
    if graph.results != request.n:
        raise ValueError(f"A request for {request.n} results cannot have a graph of {graph.results}.")
    if once is not None or limits != UNLIMITED:
        await tenant_limits.lock(tx, tenant_id)
    if once is not None and (known := await idempotency.find(tx, tenant_id, once)) is not None:
        return await read_job(tx, known, tenant_id)
    await tenant_limits.check(tx, tenant_id, limits)
    deadline_at = None if request.deadline_s is None else tx.now + timedelta(seconds=request.deadline_s)
    ends = [moment for moment in (deadline_at, expires_at) if moment is not None]
    job = JobRow(job_id, deadline_at=deadline_at, expires_at=expires_at, ends_at=min(ends, default=None))
    life = Lifecycle(job, new_stages(graph), tx.now)
    life.created()
    life.job.last_seq = len(life.events)
    await tx.insert_new(tenants, {"id": tenant_id, "created_at": tx.now})
    facts = {
        "tenant_id": tenant_id,
        "model": request.model,
        "graph": graph.name,
        "request": encode(request),
        "created_at": tx.now,
        "n": request.n,
        "ttl_s": request.delivery.ttl_s,
        "swept": 0,
        "trace": None if request.trace is None else str(request.trace),
        "price_micro_usd": int((price_usd * MICRO).to_integral_value(ROUND_HALF_EVEN)),
    }
    try:
        added = await tx.conn.execute(insert(jobs).values(plain(life.job) | facts).returning(jobs.c.number))
    except IntegrityError as error:
        raise Conflict(f"Job {job_id!r} exists already; use a new id.") from error
    await _name(tx, job_id, tenant_id, request.delivery.task_id)
    of_job = {
        "job_id": job_id,
        "tenant_id": tenant_id,
        "job_number": added.scalar_one(),
        "rank": -request.priority,
        "due_at": deadline_at or END_OF_TIME,
    }
    await tx.conn.execute(insert(stages), [plain(stage) | of_job for stage in life.stages.values()])
    await write_events(tx, life)
    if once is not None:
        await idempotency.keep(tx, tenant_id, once, job_id)
    return await read_job(tx, job_id, tenant_id)


async def _name(tx: Transaction, job_id: str, tenant_id: str, task_id: str | None) -> None:
    """Keeps what the caller calls the job, in any letter case. Conflict when the tenant has used the name before."""
    if task_id is None:
        return
    try:
        row = {"tenant_id": tenant_id, "task_id": task_id.lower(), "job_id": job_id}
        await tx.conn.execute(insert(tasks).values(row))
    except IntegrityError as error:
        raise Conflict(f"Task {task_id} exists already; use a new id.") from error


async def hide(tx: Transaction, job_id: str) -> None:
    """Takes the job out of every listing and gives it to the sweeper, unless its results are gone already. What it
    still owes to receivers is withdrawn: there is nothing left to tell of.
    """
    to_sweep = {
        "swept": case((jobs.c.swept == 2, 2), else_=0),
        "sweep_at": case((jobs.c.sweep_at > tx.now, jobs.c.sweep_at), else_=tx.now),
    }
    await tx.conn.execute(update(jobs).where(jobs.c.id == job_id).values(deleted_at=tx.now, **to_sweep))
    await outbox.withdraw(tx, job_id)


async def check_visible(tx: Transaction, job_id: str, tenant_id: str) -> None:
    """Raises NotFound for an unknown, deleted or foreign job."""
    query = select(jobs.c.id).where(jobs.c.id == job_id, visible(tenant_id))
    if (await tx.conn.execute(query)).scalar_one_or_none() is None:
        raise missing(job_id)


def new_stages(graph: StageGraph) -> list[StageRow]:
    """A graph's stages before anything has happened, all BLOCKED."""
    return [
        StageRow(
            stage=node.stage,
            result=node.result,
            chunk=node.chunk,
            position=position,
            weight=node.weight,
            final=node.key in graph.finals,
            inputs=node.inputs,
        )
        for position, node in enumerate(graph.nodes)
    ]
