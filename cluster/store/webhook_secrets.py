"""The tenants' webhook secrets. They sign, so they are kept as they are and not as hashes."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, or_, select, update

from cluster.store.database import Transaction
from cluster.store.outbox_tables import webhook_secrets

PREFIX = "whsec_"
_SECRET_NBYTES = 32


async def read(tx: Transaction, tenant_id: str) -> Sequence[str]:
    """The secrets that sign now, the current one first; none before the first `renew`."""
    living = or_(webhook_secrets.c.retires_at.is_(None), webhook_secrets.c.retires_at > tx.now)
    query = select(webhook_secrets.c.secret).where(webhook_secrets.c.tenant_id == tenant_id, living)
    return list((await tx.conn.execute(query.order_by(webhook_secrets.c.generation.desc()))).scalars())


async def renew(tx: Transaction, tenant_id: str, overlap_s: float, *, only_first: bool) -> None:
    """Writes a new secret; the one before signs for `overlap_s` more. `only_first`: not when there is one."""
    mine = webhook_secrets.c.tenant_id == tenant_id
    newest = (await tx.conn.execute(select(func.max(webhook_secrets.c.generation)).where(mine))).scalar_one()
    if only_first and newest is not None:
        return
    until = tx.now + timedelta(seconds=overlap_s)
    before = update(webhook_secrets).where(mine, webhook_secrets.c.generation == newest)
    await tx.conn.execute(before.where(webhook_secrets.c.retires_at.is_(None)).values(retires_at=until))
    secret = PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_NBYTES)).decode()
    row = {"tenant_id": tenant_id, "generation": (newest or 0) + 1, "secret": secret, "created_at": tx.now}
    await tx.insert_new(webhook_secrets, row)  # of two rotations at once one wins, and both see it
