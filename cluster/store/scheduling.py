"""The Scheduler's side of the job store: leadership, the reading for policies, overdue jobs, jobs to sweep."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import BindParameter, RowMapping, bindparam, func, select, update

from cluster.errors import StaleEpoch
from cluster.records import StageRef, StageState, Worker
from cluster.store import waiting
from cluster.store.base import ClusterState, Leadership, ReadyStage, RunningStage
from cluster.store.database import Transaction
from cluster.store.schema import (
    CLAIMED,
    DISPATCHED,
    END_OF_TIME,
    HELD,
    KEPT,
    KEPT_UNTIL,
    MAY_EXPIRE,
    READY,
    UNSWEPT,
    VISIBLE,
    Utc,
    jobs,
    leaders,
    stages,
    workers,
)
from cluster.tenancy import Limits

ROLE = "scheduler"
_BATCH = 500
REAP_LIMIT = 256  # overdue jobs of each kind per call: keeps the write transaction short
_READY = (
    select(
        stages.c.job_id,
        stages.c.stage,
        stages.c.result,
        stages.c.chunk,
        stages.c.due_at,
        stages.c.ready_at,
        stages.c.rank,
        jobs.c.model,
        jobs.c.graph,
        jobs.c.tenant_id,
        jobs.c.created_at,
        jobs.c.n.label("results"),
    )
    .join(jobs, jobs.c.id == stages.c.job_id)
    .where(READY)
)
_OF_STAGE = _READY.where(stages.c.stage == bindparam("of_stage")).limit(bindparam("most"))
_URGENT = _OF_STAGE.order_by(stages.c.rank, stages.c.due_at, stages.c.job_number)
_NUMBERS: BindParameter[list[int]] = bindparam("numbers", expanding=True)
_NUMBERED = _READY.where(stages.c.stage == bindparam("of_stage"), stages.c.job_number.in_(_NUMBERS))
_OLDEST = _OF_STAGE.order_by(stages.c.job_number)

_ALL = _READY.limit(bindparam("most"))
_ALIVE = select(workers).where(workers.c.seen_at > bindparam("since", type_=Utc())).order_by(workers.c.id)
_LEADER = select(leaders.c.owner, leaders.c.term).where(leaders.c.role == ROLE).with_for_update(read=True)
_BUSY = (
    select(stages.c.stage, stages.c.state, stages.c.worker, func.count())
    .where(HELD)
    .group_by(stages.c.stage, stages.c.state, stages.c.worker)
)


async def lead(tx: Transaction, owner: str, ttl_s: float) -> Leadership | None:
    """Takes or renews leadership. A leader whose time ran out keeps its term unless somebody led in between."""
    row = (await tx.conn.execute(select(leaders).where(leaders.c.role == ROLE).with_for_update())).one()
    if row.owner is not None and row.owner != owner and row.until > tx.now:
        return None
    term = row.term if row.owner == owner else row.term + 1
    values = {"owner": owner, "term": term, "until": tx.now + timedelta(seconds=ttl_s)}
    await tx.conn.execute(update(leaders).where(leaders.c.role == ROLE).values(values))
    return Leadership(owner, term)


async def resign(tx: Transaction, leadership: Leadership) -> None:
    """Leaves the term behind, so that the next leader's is larger."""
    mine = (leaders.c.role == ROLE) & (leaders.c.owner == leadership.owner) & (leaders.c.term == leadership.term)
    await tx.conn.execute(update(leaders).where(mine).values(owner=None, until=None))


async def fence(tx: Transaction, leadership: Leadership) -> None:
    """Holds the leader row still for this transaction. StaleEpoch for everybody but the leader."""
    row = (await tx.conn.execute(_LEADER)).one()
    if (row.owner, row.term) != (leadership.owner, leadership.term):
        raise StaleEpoch(f"Term {leadership.term} of {leadership.owner} is over; another Scheduler leads.")


async def read_state(tx: Transaction, worker_ttl_s: float, ready_limit: int, limits: Limits) -> ClusterState:
    """All ready rows if there are no more than `ready_limit`. Else of each stage the `ready_limit` most urgent and the
    `ready_limit` oldest: a flood of one stage hides no other, and a flood of urgent jobs does not hide an old one from
    the policy's ageing. When there are more, the heads of every tenant too, and what goes on under a limit.
    """
    rows = (await tx.conn.execute(_ALL, {"most": ready_limit + 1})).mappings().all()
    crowded = len(rows) > ready_limit  # else these are all there are
    ready: dict[StageRef, ReadyStage] = {} if crowded else {item.ref: item for item in map(_ready, rows)}
    flooded = False
    for stage in await _ready_stages(tx) if crowded else ():
        for order in (_URGENT, _OLDEST):
            rows = (await tx.conn.execute(order, {"of_stage": stage, "most": ready_limit})).mappings().all()
            ready.update((item.ref, item) for item in map(_ready, rows))
            if len(rows) < ready_limit:
                break  # they are all there are
        else:
            flooded = True
            numbers = await waiting.read_heads(tx, stage)
            for start in range(0, len(numbers), _BATCH):
                named = {"of_stage": stage, "numbers": numbers[start : start + _BATCH]}
                rows = (await tx.conn.execute(_NUMBERED, named)).mappings().all()
                ready.update((item.ref, item) for item in map(_ready, rows))
    tenant_ids = {item.tenant_id for item in ready.values()}
    begun = {tenant: await waiting.read_begun(tx, tenant, limits) for tenant in sorted(tenant_ids)}
    if flooded and (ids := sorted(set().union(*begun.values()))):
        rows = (await tx.conn.execute(_READY.where(stages.c.job_id.in_(ids)))).mappings().all()
        ready.update((item.ref, item) for item in map(_ready, rows))
    for ref, item in ready.items():
        if ref.job_id in begun[item.tenant_id]:
            ready[ref] = replace(item, begun=True)
    loads, call_s = await waiting.read_loads(tx, begun)
    since = {"since": tx.now - timedelta(seconds=worker_ttl_s)}
    alive = [_worker(row) for row in (await tx.conn.execute(_ALIVE, since)).mappings()]
    names = {worker.id for worker in alive}
    busy: Counter[str] = Counter()
    leaving: Counter[str] = Counter()
    for stage, held, worker, count in (await tx.conn.execute(_BUSY)).all():
        busy[stage] += count
        if held == StageState.CLAIMED.value and worker not in names:
            leaving[stage] += count
    return ClusterState(
        now=tx.now,
        ready=tuple(ready.values()),
        workers=alive,
        busy=dict(busy),
        leaving=dict(leaving),
        loads=loads,
        call_s=call_s,
    )


async def _ready_stages(tx: Transaction) -> list[str]:
    """The distinct stages that have ready rows, by one index step each (DISTINCT would read every entry)."""
    names: list[str] = []
    while True:
        query = select(func.min(stages.c.stage)).where(READY, stages.c.stage > (names[-1] if names else ""))
        name = (await tx.conn.execute(query)).scalar_one()
        if name is None:
            return names
        names.append(name)


def _worker(row: RowMapping) -> Worker:
    return Worker(**{**row, "loaded": tuple(row["loaded"])})


def _ready(row: RowMapping) -> ReadyStage:
    return ReadyStage(
        ref=_ref(row),
        model=row["model"],
        graph=row["graph"],
        results=row["results"],
        tenant_id=row["tenant_id"],
        priority=-row["rank"],
        deadline_at=None if row["due_at"] == END_OF_TIME else row["due_at"],
        created_at=row["created_at"],
        ready_at=row["ready_at"],
    )


async def read_running(tx: Transaction, tenant_id: str | None, limit: int) -> list[RunningStage]:
    """Claimed stages, the longest running first."""
    names = ("worker", "attempt", "step", "steps", "claimed_at")
    query = select(*(stages.c[name] for name in ("job_id", "stage", "chunk", "result", *names)))
    mine = CLAIMED if tenant_id is None else CLAIMED & (stages.c.tenant_id == tenant_id)
    rows = await tx.conn.execute(query.where(mine).order_by(stages.c.claimed_at).limit(limit))
    return [RunningStage(_ref(row), **{name: row[name] for name in names}) for row in rows.mappings()]


def _ref(row: RowMapping) -> StageRef:
    return StageRef(row["job_id"], row["stage"], row["chunk"], row["result"])


async def read_overdue(tx: Transaction, dispatch_ttl_s: float) -> set[str]:
    """Jobs with a dispatch nobody claimed, a lease that ran out, or their own end reached."""
    unclaimed = select(stages.c.job_id).where(
        DISPATCHED, stages.c.dispatched_at <= tx.now - timedelta(seconds=dispatch_ttl_s)
    )
    lost = select(stages.c.job_id).where(CLAIMED, stages.c.lease_until <= tx.now)
    ended = select(jobs.c.id).where(MAY_EXPIRE, jobs.c.ends_at <= tx.now)
    found: set[str] = set()
    for query in (unclaimed, lost, ended):
        found.update((await tx.conn.execute(query.limit(REAP_LIMIT))).scalars())
    return found


async def read_sweepable(tx: Transaction, keep_s: float, limit: int) -> list[tuple[str, bool]]:
    """Ended jobs with files to remove, oldest first, each with whether its results are due too. Results are kept until
    `expires_at`, or `keep_s` after the end for a job without one.
    """
    keep = tx.now - timedelta(seconds=keep_s)
    columns = select(jobs.c.id, jobs.c.finished_at, jobs.c.expires_at, jobs.c.deleted_at)
    found: list[RowMapping] = []
    for query in (
        columns.where(UNSWEPT, jobs.c.sweep_at <= tx.now).order_by(jobs.c.sweep_at),
        columns.where(KEPT, jobs.c.finished_at <= keep).order_by(jobs.c.finished_at),
        columns.where(KEPT_UNTIL, jobs.c.expires_at <= tx.now).order_by(jobs.c.expires_at),
    ):
        found.extend((await tx.conn.execute(query.limit(limit))).mappings())
    found.sort(key=lambda row: (row["finished_at"], row["id"]))

    def due(row: RowMapping) -> bool:
        ended = row["finished_at"] <= keep if row["expires_at"] is None else row["expires_at"] <= tx.now
        return ended or row["deleted_at"] is not None

    return [(row["id"], due(row)) for row in found[:limit]]


async def mark_swept(tx: Transaction, job_id: str, results: bool) -> None:
    """The files are gone. A job deleted since it was listed stays listed until its results are gone too."""
    mine = jobs.c.id == job_id
    if results:
        await tx.conn.execute(update(jobs).where(mine).values(swept=2))
    else:
        await tx.conn.execute(update(jobs).where(mine, UNSWEPT, VISIBLE).values(swept=1))
