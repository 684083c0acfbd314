"""The waiting tenants of a dispatch reading, without walking what any one of them has queued.

The most urgent and the oldest rows of a stage may all be one tenant's. When there are more than were read, the tenants
are found by one index step each (a loose index scan), and of each a few heads by one more step each. Both databases
plan this the same way; neither LATERAL nor window functions do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import timedelta
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, bindparam, func, select

from cluster.records import JobState
from cluster.store.accounts import tenant_hours
from cluster.store.database import Transaction
from cluster.store.limits import hour_of
from cluster.store.schema import HELD, READY, VISIBLE, jobs, stages
from cluster.tenancy import Limits, TenantLoad

HEADS = 4  # of each tenant and order: how many of its calls one reading can start when somebody floods the stage
LATELY_H = 6  # hours of use that fairness weighs, the present one included
_BATCH = 500


def _tenants() -> CTE:
    """The distinct tenants that have ready rows of a stage."""
    of_stage = (READY, stages.c.stage == bindparam("of_stage"))
    first = select(func.min(stages.c.tenant_id)).where(*of_stage).scalar_subquery()
    waiting = select(first.label("tenant_id")).cte("waiting", recursive=True)
    following = select(func.min(stages.c.tenant_id)).where(*of_stage, stages.c.tenant_id > waiting.c.tenant_id)
    step = select(following.correlate(waiting).scalar_subquery()).where(waiting.c.tenant_id.is_not(None))
    return waiting.union_all(step)


def _heads() -> Select[Any]:
    """Job numbers of every waiting tenant's first rows in both orders; an offset must be a constant."""
    waiting = _tenants()

    def nth(offset: int, *order: ColumnElement[Any]) -> ColumnElement[Any]:
        mine = (READY, stages.c.stage == bindparam("of_stage"), stages.c.tenant_id == waiting.c.tenant_id)
        rows = select(stages.c.job_number).where(*mine).order_by(*order).limit(1).offset(offset)
        return rows.correlate(waiting).scalar_subquery()

    urgent = (nth(n, stages.c.rank, stages.c.due_at, stages.c.job_number) for n in range(HEADS))
    oldest = (nth(n, stages.c.job_number) for n in range(HEADS))
    return select(*urgent, *oldest).where(waiting.c.tenant_id.is_not(None))


_HEADS = _heads()


async def read_heads(tx: Transaction, stage: str) -> list[int]:
    """Job numbers of the first rows of every tenant that waits for this stage."""
    rows = (await tx.conn.execute(_HEADS, {"of_stage": stage})).all()
    return sorted({number for row in rows for number in row if number is not None})


async def read_loads(
    tx: Transaction, begun: Mapping[str, Set[str]]
) -> tuple[Mapping[str, TenantLoad], Mapping[str, float]]:
    """What each of these tenants has had lately and has now (`begun`: its jobs in progress); and what a call of each
    stage costs on the average, in device-seconds. A single tenant competes with nobody: its use is not read.
    """
    used: dict[str, float] = dict.fromkeys(begun, 0.0)
    served: dict[str, dict[str, Any]] = {tenant: {} for tenant in begun}
    cost: dict[str, tuple[float, int]] = {}
    held: Mapping[str, Mapping[str, int]] = {}
    if len(begun) > 1:
        held = await _read_held(tx)
        for tenant_id, stage, useful_s, wasted_s, done, last_at in await _read_lately(tx, sorted(begun)):
            used[tenant_id] += useful_s + wasted_s
            served[tenant_id][stage] = last_at
            seconds, calls = cost.get(stage, (0.0, 0))
            cost[stage] = seconds + useful_s, calls + done
    loads = {
        tenant: TenantLoad(
            used_s=used[tenant], held=held.get(tenant, {}), served_at=served[tenant], running=len(job_ids)
        )
        for tenant, job_ids in begun.items()
    }
    return loads, {stage: seconds / calls for stage, (seconds, calls) in cost.items() if calls}


async def read_begun(tx: Transaction, tenant_id: str, limits: Limits) -> set[str]:
    """The jobs in progress of a tenant whose number is limited (of any other tenant: none): those that a worker has
    begun, and those with a call on its way. At most a few more than the limit.
    """
    most = limits.of(tenant_id).running
    if most is None:
        return set()
    mine = (VISIBLE, jobs.c.tenant_id == tenant_id, jobs.c.state == JobState.RUNNING.value)
    begun = await tx.conn.execute(select(jobs.c.id).where(*mine).limit(most))
    called = await tx.conn.execute(select(stages.c.job_id).where(HELD, stages.c.tenant_id == tenant_id))
    return set(begun.scalars()) | set(called.scalars())


async def _read_held(tx: Transaction) -> dict[str, dict[str, int]]:
    query = select(stages.c.tenant_id, stages.c.stage, func.count()).where(HELD)
    held: dict[str, dict[str, int]] = {}
    for tenant_id, stage, count in await tx.conn.execute(query.group_by(stages.c.tenant_id, stages.c.stage)):
        held.setdefault(tenant_id, {})[stage] = count
    return held


async def _read_lately(tx: Transaction, tenant_ids: Sequence[str]) -> list[Any]:
    since = hour_of(tx.now) - timedelta(hours=LATELY_H - 1)
    sums = (func.sum(tenant_hours.c[name]) for name in ("useful_s", "wasted_s", "done"))
    key = (tenant_hours.c.tenant_id, tenant_hours.c.stage)
    query = select(*key, *sums, func.max(tenant_hours.c.last_at)).where(tenant_hours.c.hour >= since).group_by(*key)
    found: list[Any] = []
    for start in range(0, len(tenant_ids), _BATCH):
        batch = tenant_ids[start : start + _BATCH]
        found += (await tx.conn.execute(query.where(tenant_hours.c.tenant_id.in_(batch)))).all()
    return found
