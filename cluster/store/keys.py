"""API keys in the job store: found by the hash of their secret."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import insert, or_, select, update

from cluster.errors import NotFound
from cluster.store.accounts import keys
from cluster.store.database import Transaction
from cluster.store.schema import tenants
from cluster.tenancy import ApiKey

SEEN_EVERY_S = 600.0  # `last_used_at` is no more exact than this, so that requests do not write


async def create(tx: Transaction, tenant_id: str, name: str, sha256: str, admin: bool) -> ApiKey:
    """Adds a key; the tenant exists from then on."""
    key = ApiKey(f"key_{secrets.token_hex(8)}", tenant_id, name, sha256, admin, tx.now, None, None)
    await tx.insert_new(tenants, {"id": tenant_id, "created_at": tx.now})
    await tx.conn.execute(insert(keys).values(asdict(key)))
    return key


async def read(tx: Transaction, tenant_id: str | None) -> list[ApiKey]:
    """Every key, or a tenant's, oldest first; revoked ones too."""
    query = select(keys).order_by(keys.c.created_at, keys.c.id)
    if tenant_id is not None:
        query = query.where(keys.c.tenant_id == tenant_id)
    return [ApiKey(**row) for row in (await tx.conn.execute(query)).mappings()]


async def find(tx: Transaction, sha256: str) -> ApiKey | None:
    """The key with this hash unless it is revoked."""
    query = select(keys).where(keys.c.sha256 == sha256, keys.c.revoked_at.is_(None))
    row = (await tx.conn.execute(query)).mappings().one_or_none()
    return None if row is None else ApiKey(**row)


async def revoke(tx: Transaction, key_id: str) -> None:
    """From now on the key opens nothing; again changes nothing. NotFound."""
    known = (await tx.conn.execute(select(keys.c.id).where(keys.c.id == key_id))).scalar_one_or_none()
    if known is None:
        raise NotFound(f"Key {key_id!r} does not exist; `skyreels keys list` shows the ids.")
    mine = (keys.c.id == key_id) & keys.c.revoked_at.is_(None)
    await tx.conn.execute(update(keys).where(mine).values(revoked_at=tx.now))


async def used(tx: Transaction, key_id: str) -> None:
    """Notes that the key is in use."""
    before = tx.now - timedelta(seconds=SEEN_EVERY_S)
    stale = or_(keys.c.last_used_at.is_(None), keys.c.last_used_at <= before)
    await tx.conn.execute(update(keys).where(keys.c.id == key_id, stale).values(last_used_at=tx.now))
