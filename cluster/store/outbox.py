"""The outbox: parcels written with the events that cause them, claimed under leases, settled under epochs.

A parcel that is being sent is due again when its lease ends, so a sender that died loses nothing: at least once, never
exactly once. Claims go from host to host, so that one receiver's backlog hides nobody else's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import RowMapping, bindparam, delete, func, insert, select, update

from cluster.deliveries import (
    RESULT,
    STATE,
    Backlog,
    Outcome,
    Parcel,
    ParcelKind,
    ParcelPage,
    ParcelState,
    owed,
    receiver,
)
from cluster.errors import Conflict, NotFound
from cluster.records import Delivery, JobState, decode
from cluster.store.database import Transaction
from cluster.store.news import Topic
from cluster.store.outbox_tables import OPEN, SETTLED, deliveries
from cluster.store.schema import jobs

_FACTS = (
    "id", "job_id", "tenant_id", "seq", "url", "host", "result", "epoch", "attempts", "next_at", "last_status",
    "last_error", "created_at", "settled_at",
)  # fmt: skip
_PARCEL = select(*(deliveries.c[name] for name in (*_FACTS, "kind", "state")))
_FIRST = select(func.min(deliveries.c.host).label("host")).where(OPEN).cte("hosts", recursive=True)
_NEXT = select(func.min(deliveries.c.host)).where(OPEN, deliveries.c.host > _FIRST.c.host).scalar_subquery()
_HOSTS = _FIRST.union_all(select(_NEXT).where(_FIRST.c.host.is_not(None)))
_OLDEST = select(func.min(deliveries.c.next_at)).where(OPEN, deliveries.c.host == _HOSTS.c.host).scalar_subquery()
_DUE_HOSTS = (
    select(_HOSTS.c.host)
    .where(bindparam("at") >= _OLDEST, _HOSTS.c.host.not_in(bindparam("full", expanding=True)))
    .order_by(_OLDEST)
    .limit(bindparam("most"))
)
_DUE_OF_HOST = (
    select(deliveries.c.id)
    .where(OPEN, deliveries.c.host == bindparam("of_host"), deliveries.c.next_at <= bindparam("at"))
    .order_by(deliveries.c.next_at)
    .limit(bindparam("most"))
)


async def owe(tx: Transaction, events: Sequence[Mapping[str, Any]]) -> None:
    """Writes what these events of one job make due, in their transaction."""
    telling = [event for event in events if _may_owe(event)]
    if not telling:
        return
    job_id = telling[0]["job_id"]
    row = (await tx.conn.execute(select(jobs.c.tenant_id, jobs.c.request).where(jobs.c.id == job_id))).one()
    delivery = decode(Delivery, row.request["delivery"])
    for event in telling:
        for item in owed(delivery, event["type"], event["data"]):
            values = {
                "id": f"dlv_{secrets.token_hex(12)}",
                "job_id": job_id,
                "tenant_id": row.tenant_id,
                "seq": event["seq"],
                "kind": item.kind.value,
                "url": item.url,
                "host": receiver(item.url),
                "result": item.result,
                "state": ParcelState.PENDING.value,
                "epoch": 0,
                "attempts": 0,
                "next_at": tx.now,
                "waits_for": await _upload(tx, job_id) if item.kind is ParcelKind.WEBHOOK else None,
                "created_at": tx.now,
            }
            await tx.conn.execute(insert(deliveries).values(values))
            tx.tell(Topic.DELIVERIES)


def _may_owe(event: Mapping[str, Any]) -> bool:
    return event["type"] == RESULT or (event["type"] == STATE and JobState(event["data"]["state"]).terminal)


async def _upload(tx: Transaction, job_id: str) -> str | None:
    """The job's upload that is not settled yet; locked, so that it is settled before this transaction or after it."""
    query = select(deliveries.c.id).where(deliveries.c.job_id == job_id, deliveries.c.kind == ParcelKind.UPLOAD.value)
    found: str | None = (
        await tx.conn.execute(query.where(deliveries.c.settled_at.is_(None)).with_for_update())
    ).scalar_one_or_none()
    return found


async def find_due(tx: Transaction, limit: int, per_host: int, room: Mapping[str, int]) -> list[str]:
    """Ids of parcels to claim: of each host as many as it has room for, hosts in the order of their oldest."""
    full = [host for host, free in room.items() if free < 1]
    hosts = await tx.conn.execute(_DUE_HOSTS, {"at": tx.now, "full": full, "most": limit})
    found: list[str] = []
    for host in hosts.scalars().all():
        most = min(room.get(host, per_host), limit - len(found))
        if most < 1:
            break
        rows = await tx.conn.execute(_DUE_OF_HOST, {"of_host": host, "at": tx.now, "most": most})
        found.extend(rows.scalars())
    return found


async def claim(tx: Transaction, ids: Sequence[str], lease_s: float) -> Sequence[Parcel]:
    """Takes those of the parcels that are still due and that nobody else is taking."""
    due = select(deliveries.c.id).where(deliveries.c.id.in_(ids), OPEN, deliveries.c.next_at <= tx.now)
    taken = list((await tx.conn.execute(due.with_for_update(skip_locked=True))).scalars())
    if not taken:
        return []
    change = {
        "state": ParcelState.SENDING.value,
        "epoch": deliveries.c.epoch + 1,
        "attempts": deliveries.c.attempts + 1,
        "next_at": tx.now + timedelta(seconds=lease_s),
    }
    mine = deliveries.c.id.in_(taken)
    await tx.conn.execute(update(deliveries).where(mine).values(change))
    rows = await tx.conn.execute(_PARCEL.where(mine).order_by(deliveries.c.number))
    return [_parcel(row) for row in rows.mappings()]


async def renew(tx: Transaction, parcels: Sequence[Parcel], lease_s: float) -> None:
    """Moves the end of the leases that are still held."""
    until = tx.now + timedelta(seconds=lease_s)
    for parcel in parcels:
        await tx.conn.execute(update(deliveries).where(*_held(parcel)).values(next_at=until))


async def settle(tx: Transaction, parcel: Parcel, outcome: Outcome) -> bool:
    """Records how an attempt ended; False when the lease has passed to somebody else."""
    over = outcome.state in (ParcelState.DELIVERED, ParcelState.DEAD)
    change = {
        "state": outcome.state.value,
        "last_status": outcome.status,
        "last_error": outcome.error,
        "next_at": tx.now + timedelta(seconds=outcome.delay_s),
        "settled_at": tx.now if over else None,
    }
    done = await tx.conn.execute(update(deliveries).where(*_held(parcel)).values(change))
    if done.rowcount == 0:
        return False
    if over:
        freed = update(deliveries).where(deliveries.c.waits_for == parcel.id)
        await tx.conn.execute(freed.values(waits_for=None, next_at=tx.now))
        tx.tell(Topic.DELIVERIES)
    return True


def _held(parcel: Parcel) -> tuple[Any, ...]:
    sending = deliveries.c.state == ParcelState.SENDING.value
    return deliveries.c.id == parcel.id, deliveries.c.epoch == parcel.epoch, sending


async def resend(tx: Transaction, parcel_id: str, tenant_id: str | None) -> Parcel:
    """A settled parcel is due again, with all its attempts. NotFound, Conflict."""
    mine = deliveries.c.id == parcel_id
    if tenant_id is not None:
        mine &= deliveries.c.tenant_id == tenant_id
    change = {"state": ParcelState.PENDING.value, "attempts": 0, "next_at": tx.now, "settled_at": None}
    done = await tx.conn.execute(update(deliveries).where(mine, SETTLED).values(change))
    row = (await tx.conn.execute(_PARCEL.where(mine))).mappings().one_or_none()
    if row is None:
        raise NotFound(f"Delivery {parcel_id!r} does not exist; check the id.")
    if done.rowcount == 0:
        raise Conflict(f"Delivery {parcel_id!r} is {row['state']}; it is sent again by itself until it is settled.")
    tx.tell(Topic.DELIVERIES)
    return _parcel(row)


async def read_page(
    tx: Transaction,
    tenant_id: str | None,
    states: Sequence[ParcelState],
    job_id: str | None,
    after: str | None,
    limit: int,
) -> ParcelPage:
    """Newest first. NotFound for an `after` that does not exist."""
    query = _PARCEL.order_by(deliveries.c.number.desc()).limit(limit + 1)
    if tenant_id is not None:
        query = query.where(deliveries.c.tenant_id == tenant_id)
    if states:
        query = query.where(deliveries.c.state.in_([state.value for state in states]))
    if job_id is not None:
        query = query.where(deliveries.c.job_id == job_id)
    if after is not None:
        of_after = select(deliveries.c.number).where(deliveries.c.id == after)
        if tenant_id is not None:
            of_after = of_after.where(deliveries.c.tenant_id == tenant_id)
        number = (await tx.conn.execute(of_after)).scalar_one_or_none()
        if number is None:
            raise NotFound(f"Delivery {after!r} does not exist (any more); list from the beginning.")
        query = query.where(deliveries.c.number < number)
    found = [_parcel(row) for row in (await tx.conn.execute(query)).mappings()]
    return ParcelPage(found[:limit], has_more=len(found) > limit)


async def read_backlog(tx: Transaction) -> Backlog:
    """Counts of what is not delivered, by kind and state, zeros included; the age of the oldest due parcel."""
    query = select(deliveries.c.kind, deliveries.c.state, func.count()).group_by(deliveries.c.state, deliveries.c.kind)
    states = sorted(set(ParcelState) - {ParcelState.DELIVERED})
    rows = await tx.conn.execute(query.where(deliveries.c.state.in_([state.value for state in states])))
    counts = {(kind, state): 0 for kind in ParcelKind for state in states}
    counts |= {(ParcelKind(row[0]), ParcelState(row[1])): row[2] for row in rows.all()}
    oldest = (await tx.conn.execute(select(func.min(_OLDEST)).select_from(_HOSTS))).scalar_one()
    return Backlog(counts, 0.0 if oldest is None else max(0.0, (tx.now - oldest).total_seconds()))


async def withdraw(tx: Transaction, job_id: str) -> None:
    """Removes every parcel of a job."""
    await tx.conn.execute(delete(deliveries).where(deliveries.c.job_id == job_id))


async def forget_settled(tx: Transaction, job_id: str) -> None:
    """Removes the settled parcels of a job; a webhook that is still being tried goes on."""
    await tx.conn.execute(delete(deliveries).where(deliveries.c.job_id == job_id, SETTLED))


async def purge(tx: Transaction, keep_s: float) -> None:
    """Removes parcels settled more than `keep_s` ago."""
    old = deliveries.c.settled_at <= tx.now - timedelta(seconds=keep_s)
    await tx.conn.execute(delete(deliveries).where(SETTLED, old))


def _parcel(row: RowMapping) -> Parcel:
    values = {name: row[name] for name in _FACTS}
    return Parcel(**values, kind=ParcelKind(row["kind"]), state=ParcelState(row["state"]))
