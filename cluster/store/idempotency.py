"""Idempotency keys: which job a tenant's key stands for. Read and written under the tenant's lock, so two requests
with one key make one job, whichever replicas they reach.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, insert, select

from cluster.errors import Conflict
from cluster.store.accounts import idempotency
from cluster.store.database import Transaction
from cluster.store.schema import VISIBLE, jobs
from cluster.tenancy import Once

KEPT_S = 24 * 3600.0


async def find(tx: Transaction, tenant_id: str, once: Once) -> str | None:
    """The job that this key has made; None when it is new.

    Raises:
        Conflict: the key came with another request, or its video is deleted.
    """
    mine = (idempotency.c.tenant_id == tenant_id) & (idempotency.c.key == once.key)
    fresh = idempotency.c.created_at > tx.now - timedelta(seconds=KEPT_S)
    query = (
        select(idempotency.c.job_id, idempotency.c.fingerprint, VISIBLE.label("visible"))
        .join(jobs, jobs.c.id == idempotency.c.job_id)
        .where(mine, fresh)
    )
    row = (await tx.conn.execute(query)).one_or_none()
    if row is None:
        return None
    if row.fingerprint != once.fingerprint:
        raise Conflict("This Idempotency-Key was used for another request; use a new key.", param="Idempotency-Key")
    if not row.visible:
        raise Conflict("The video of this Idempotency-Key is deleted; use a new key.", param="Idempotency-Key")
    return str(row.job_id)


async def keep(tx: Transaction, tenant_id: str, once: Once, job_id: str) -> None:
    """Remembers the key for `KEPT_S`; the tenant's older ones go."""
    old = idempotency.c.created_at <= tx.now - timedelta(seconds=KEPT_S)
    await tx.conn.execute(delete(idempotency).where(idempotency.c.tenant_id == tenant_id, old))
    values = {"tenant_id": tenant_id, "key": once.key, "fingerprint": once.fingerprint, "job_id": job_id}
    await tx.conn.execute(insert(idempotency).values(values | {"created_at": tx.now}))
