"""What there is to do and who is there to do it: the reading that the autoscaler decides on.

Its cost does not grow with the history: ready and held rows have indexes of their own, and the ledger's hourly sums are
entered tenant by tenant at the hours that count.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import bindparam, case, func, select

from cluster.store.accounts import tenant_hours
from cluster.store.base import StageWorkload, Workload
from cluster.store.database import Transaction
from cluster.store.limits import hour_of
from cluster.store.schema import CLAIMED, DISPATCHED, READY, Utc, stages, tenants, workers
from cluster.store.waiting import LATELY_H

_NAME = stages.c.stage
_WAITING = select(_NAME, func.count()).where(READY).group_by(_NAME)
_CALLED = select(_NAME, func.count()).where(DISPATCHED).group_by(_NAME)
_LEFT = case((stages.c.steps > 0, 1.0 - stages.c.step * 1.0 / stages.c.steps), else_=1.0)
_RUNNING = select(_NAME, func.count(), func.sum(_LEFT)).where(CLAIMED).group_by(_NAME)
_COST = (
    select(tenant_hours.c.stage, func.sum(tenant_hours.c.useful_s), func.sum(tenant_hours.c.done))
    .select_from(tenants)
    .join(
        tenant_hours,
        (tenant_hours.c.tenant_id == tenants.c.id) & (tenant_hours.c.hour >= bindparam("hour", type_=Utc())),
    )
    .group_by(tenant_hours.c.stage)
)
_REPLICAS = (
    select(workers.c.pool, func.count())
    .where(workers.c.seen_at > bindparam("since", type_=Utc()))
    .group_by(workers.c.pool)
)


async def read_workload(tx: Transaction, worker_ttl_s: float) -> Workload:
    """All tenants' work."""
    ready = {stage: count for stage, count in await tx.conn.execute(_WAITING)}
    called = {stage: count for stage, count in await tx.conn.execute(_CALLED)}
    running = {stage: (count, float(left)) for stage, count, left in await tx.conn.execute(_RUNNING)}
    since_hour = hour_of(tx.now) - timedelta(hours=LATELY_H - 1)
    cost = {
        stage: seconds / done for stage, seconds, done in await tx.conn.execute(_COST, {"hour": since_hour}) if done
    }
    since = tx.now - timedelta(seconds=worker_ttl_s)
    found: list[StageWorkload] = []
    for stage in sorted(ready.keys() | called.keys() | running.keys() | cost.keys()):
        sent = called.get(stage, 0)
        claimed, left = running.get(stage, (0, 0.0))
        found.append(StageWorkload(stage, ready.get(stage, 0), sent + claimed, sent + max(left, 0.0), cost.get(stage)))
    alive = {pool: count for pool, count in await tx.conn.execute(_REPLICAS, {"since": since})}
    return Workload(found, alive)
