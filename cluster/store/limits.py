"""A tenant's limits at the creation of a job, and how long to wait when one is reached.

Checked under the tenant's lock in the transaction of the creation, so they hold over any number of Api replicas. Each
check reads at most as many index entries as the limit allows, or a day's hourly sums.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select

from cluster.errors import LimitExceeded
from cluster.records import JobState
from cluster.store.accounts import tenant_hours
from cluster.store.database import Transaction
from cluster.store.schema import VISIBLE, jobs, tenants
from cluster.tenancy import TenantLimits

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RATE_SPAN = timedelta(hours=2)  # how far back the rate at which a tenant's jobs finish is looked up
UNKNOWN_RATE_S = 30.0  # how long to wait when none of its jobs has finished lately


async def lock(tx: Transaction, tenant_id: str) -> None:
    """Makes the tenant's other creations wait until this transaction ends; the tenant exists from then on."""
    await tx.insert_new(tenants, {"id": tenant_id, "created_at": tx.now})
    await tx.conn.execute(select(tenants.c.id).where(tenants.c.id == tenant_id).with_for_update())


async def check(tx: Transaction, tenant_id: str, limits: TenantLimits) -> None:
    """Raises LimitExceeded with the time after which the same request can succeed."""
    if limits.requests_per_minute is not None:
        await _check_rate(tx, tenant_id, limits.requests_per_minute)
    if limits.queued is not None:
        await _check_queued(tx, tenant_id, limits.queued)
    if limits.device_seconds_per_day is not None:
        await _check_day(tx, tenant_id, limits.device_seconds_per_day)


async def _check_rate(tx: Transaction, tenant_id: str, most: int) -> None:
    """The wait is exact: until the oldest of the `most` newest jobs is a minute old."""
    recent = select(jobs.c.created_at).where(jobs.c.tenant_id == tenant_id, jobs.c.created_at > tx.now - MINUTE)
    newest = recent.order_by(jobs.c.created_at.desc()).offset(most - 1).limit(1)
    at = (await tx.conn.execute(newest)).scalar_one_or_none()
    if at is not None:
        message = f"The limit of {most} requests per minute is reached; wait, or ask the operator for more."
        raise LimitExceeded(message, retry_after_s=(at + MINUTE - tx.now).total_seconds())


async def _check_queued(tx: Transaction, tenant_id: str, most: int) -> None:
    """The wait is an estimate: the mean time between two of the tenant's jobs that finished lately."""
    waiting = select(jobs.c.number).where(VISIBLE, jobs.c.tenant_id == tenant_id, jobs.c.state == JobState.QUEUED.value)
    found = (await tx.conn.execute(select(func.count()).select_from(waiting.limit(most).subquery()))).scalar_one()
    if found >= most:
        message = f"{most} videos are queued, which is the limit; wait until one of them has begun."
        raise LimitExceeded(message, retry_after_s=await _mean_finish_s(tx, tenant_id))


async def _mean_finish_s(tx: Transaction, tenant_id: str) -> float:
    since = hour_of(tx.now - RATE_SPAN)
    done = func.sum(tenant_hours.c.done)
    query = select(done).where(tenant_hours.c.tenant_id == tenant_id, tenant_hours.c.hour >= since)
    counts = [row[0] for row in await tx.conn.execute(query.group_by(tenant_hours.c.stage))]
    finished = min(counts, default=0)  # a job needs every stage at least once
    return (tx.now - since).total_seconds() / finished if finished else UNKNOWN_RATE_S


async def _check_day(tx: Transaction, tenant_id: str, most_s: float) -> None:
    """The wait is exact for what has ended: until so many of the oldest hours have left the day."""
    hour, used = tenant_hours.c.hour, func.sum(tenant_hours.c.useful_s + tenant_hours.c.wasted_s)
    query = select(hour, used).where(tenant_hours.c.tenant_id == tenant_id, hour > tx.now - DAY)
    hours = (await tx.conn.execute(query.group_by(hour).order_by(hour))).all()
    left_s = sum(row[1] for row in hours)
    if left_s < most_s:
        return
    free_at = tx.now
    for begin, used_s in hours:
        left_s -= used_s
        free_at = begin + DAY
        if left_s < most_s:
            break
    message = f"The limit of {most_s:g} device-seconds per day is reached; wait, or ask the operator for more."
    raise LimitExceeded(message, retry_after_s=max((free_at - tx.now).total_seconds(), 1.0))


def hour_of(moment: datetime) -> datetime:
    """The beginning of a moment's hour."""
    return moment.replace(minute=0, second=0, microsecond=0)
