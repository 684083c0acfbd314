"""New events of many jobs in one reading: what the event streams of one Api replica live on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import and_, or_, select

from cluster.records import Event
from cluster.store.database import Transaction
from cluster.store.schema import VISIBLE, events, jobs

_BATCH = 200  # jobs per statement, as SQLite bounds the depth of an expression


async def read(tx: Transaction, cursors: Mapping[str, int], limit: int) -> Mapping[str, Sequence[Event]]:
    """By job, at most `limit` events behind its cursor, in order; a job that is unknown or deleted is left out."""
    found: dict[str, list[Event]] = {}
    ids = list(cursors)
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        known = await tx.conn.execute(select(jobs.c.id, jobs.c.last_seq).where(jobs.c.id.in_(batch), VISIBLE))
        ends = {row.id: row.last_seq for row in known}
        found |= {job_id: [] for job_id in ends}
        # Numbers have no gaps, so a range of them is a limit.
        news = [
            and_(events.c.job_id == job_id, events.c.seq > cursors[job_id], events.c.seq <= cursors[job_id] + limit)
            for job_id, last_seq in ends.items()
            if last_seq > cursors[job_id]
        ]
        if news:
            rows = await tx.conn.execute(select(events).where(or_(*news)).order_by(events.c.job_id, events.c.seq))
            for row in rows.mappings():
                found[row["job_id"]].append(Event(**row))
    return found
