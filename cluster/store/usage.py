"""The ledger in the job store: written in the transaction that ends an attempt or publishes a result, and read back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import RowMapping, bindparam, func, insert, select, tuple_, update

from cluster.store.accounts import charges, tenant_hours, usage
from cluster.store.attempts import Attempt, Outcome
from cluster.store.database import Transaction
from cluster.store.lifecycle import Lifecycle
from cluster.store.limits import hour_of
from cluster.store.schema import jobs
from cluster.tenancy import MICRO, StageUsage, Usage

HOUR = timedelta(hours=1)
_PAGE = 1000
_USAGE_KEY = (usage.c.ended_at, usage.c.job_id, usage.c.stage, usage.c.chunk, usage.c.result, usage.c.epoch)
_CHARGE_KEY = (charges.c.at, charges.c.job_id, charges.c.index)
_JOB_FACTS = ("model", "graph", "state", "created_at", "started_at", "finished_at", "deadline_at")
FACTS = ("tenant_id", "model", "price_micro_usd")  # columns of a job that the ledger needs
_MORE = (
    update(tenant_hours)
    .where(*(tenant_hours.c[name] == bindparam(f"of_{name}") for name in ("tenant_id", "hour", "stage")))
    .values({name: tenant_hours.c[name] + bindparam(f"more_{name}") for name in ("useful_s", "wasted_s", "done")})
    .values(last_at=bindparam("now"))
)
_NEW_ATTEMPTS = insert(usage)
_FIGURES = ("resolution", "duration_s", "fps", "frames", "height", "width", "steps", "n", "priority")


async def record(tx: Transaction, lives: Iterable[Lifecycle], facts: Mapping[str, RowMapping]) -> None:
    """Writes what these jobs' attempts have cost and what their results are charged. `facts`: each job's `FACTS`."""
    hours: defaultdict[tuple[str, str], list[Attempt]] = defaultdict(list)
    attempts: list[dict[str, Any]] = []
    for life in lives:
        job = facts[life.job.id]
        for item in life.ended:
            hours[job["tenant_id"], item.stage].append(item)
            attempts.append(
                {name: getattr(item, name) for name in Attempt.__slots__}
                | {
                    "outcome": item.outcome.value,
                    "job_id": life.job.id,
                    "tenant_id": job["tenant_id"],
                    "ended_at": tx.now,
                }
            )
        for index in life.published:
            await _charge(tx, life.job.id, index, job)
    if attempts:
        await tx.conn.execute(_NEW_ATTEMPTS, attempts)
    for (tenant_id, stage), items in sorted(hours.items()):  # one order for all, so that nobody waits in a circle
        await _add(tx, tenant_id, stage, items)


async def _charge(tx: Transaction, job_id: str, index: int, job: RowMapping) -> None:
    request = (await tx.conn.execute(select(jobs.c.request).where(jobs.c.id == job_id))).scalar_one()
    values = {
        "job_id": job_id,
        "index": index,
        "tenant_id": job["tenant_id"],
        "model": job["model"],
        "seconds": request["duration_s"],
        "micro_usd": job["price_micro_usd"],
        "at": tx.now,
    }
    await tx.conn.execute(insert(charges).values(values))


async def _add(tx: Transaction, tenant_id: str, stage: str, items: Collection[Attempt]) -> None:
    key = {"tenant_id": tenant_id, "hour": hour_of(tx.now), "stage": stage}
    more = {
        "useful_s": sum(item.useful_s for item in items),
        "wasted_s": sum(item.wasted_s for item in items),
        "done": sum(item.outcome is Outcome.DONE for item in items),
    }
    named = {f"of_{name}": value for name, value in key.items()} | {f"more_{name}": more[name] for name in more}
    named["now"] = tx.now
    if (await tx.conn.execute(_MORE, named)).rowcount == 0:  # the first of its hour
        await tx.insert_new(tenant_hours, key | dict.fromkeys(more, 0) | {"last_at": tx.now})
        await tx.conn.execute(_MORE, named)


async def read(tx: Transaction, tenant_id: str, since: datetime | None, until: datetime | None) -> Usage:
    """A tenant's sums over whole hours: from the hour of `since` (a day ago) to that of `until` (now), included."""
    until = tx.now if until is None else until
    begin, end = hour_of(until - timedelta(days=1) if since is None else since), hour_of(until) + HOUR
    sums = (func.sum(tenant_hours.c[name]) for name in ("useful_s", "wasted_s", "done"))
    mine = (tenant_hours.c.tenant_id == tenant_id, tenant_hours.c.hour >= begin, tenant_hours.c.hour < end)
    query = select(tenant_hours.c.stage, *sums).where(*mine).group_by(tenant_hours.c.stage)
    stages = tuple(StageUsage(*row) for row in await tx.conn.execute(query.order_by(tenant_hours.c.stage)))
    totals = select(func.count(), func.sum(charges.c.seconds), func.sum(charges.c.micro_usd))
    within = (charges.c.tenant_id == tenant_id, charges.c.at >= begin, charges.c.at < end)
    results, seconds, micro = (await tx.conn.execute(totals.where(*within))).one()
    charged_usd = Decimal(int(micro or 0)) / MICRO
    return Usage(tenant_id, begin, end, stages, results, int(seconds or 0), charged_usd)


async def attempts(
    tx: Transaction, tenant_id: str | None, since: datetime | None, until: datetime | None
) -> AsyncIterator[list[dict[str, Any]]]:
    """The ledger's attempts with what their jobs were, in the order they ended, page by page."""
    facts = (*(jobs.c[name] for name in _JOB_FACTS), jobs.c.request)
    query = select(usage, *facts).join(jobs, jobs.c.id == usage.c.job_id).order_by(*_USAGE_KEY).limit(_PAGE)
    query = _bounded(query, usage.c, usage.c.ended_at, tenant_id, since, until)
    async for page in _pages(tx, query, _USAGE_KEY):
        for row in page:
            request = row.pop("request")
            row |= {name: request[name] for name in _FIGURES}
        yield page


async def charged(
    tx: Transaction, tenant_id: str | None, since: datetime | None, until: datetime | None
) -> AsyncIterator[list[dict[str, Any]]]:
    """The ledger's charges, oldest first, page by page."""
    query = _bounded(select(charges), charges.c, charges.c.at, tenant_id, since, until)
    async for page in _pages(tx, query.order_by(*_CHARGE_KEY).limit(_PAGE), _CHARGE_KEY):
        yield page


def _bounded(
    query: Any, columns: Any, moment: Any, tenant_id: str | None, since: datetime | None, until: datetime | None
) -> Any:
    if tenant_id is not None:
        query = query.where(columns.tenant_id == tenant_id)
    if since is not None:
        query = query.where(moment >= since)
    return query if until is None else query.where(moment < until)


async def _pages(tx: Transaction, query: Any, key: tuple[Any, ...]) -> AsyncIterator[list[dict[str, Any]]]:
    after = query
    while rows := [dict(row) for row in (await tx.conn.execute(after)).mappings()]:
        last = tuple(rows[-1][column.name] for column in key)
        yield rows
        if len(rows) < _PAGE:
            return
        after = query.where(tuple_(*key) > tuple_(*last))
