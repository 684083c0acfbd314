"""The tenants' side of the job store: keys and the ledger. Limits and idempotency are part of creating a job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from cluster.records import Job
from cluster.store import idempotency, keys, reading, usage
from cluster.store.database import Database
from cluster.tenancy import ApiKey, Once, Usage

Rows = list[dict[str, Any]]


class TenancyStore(Protocol):
    """What every job store promises about tenants. Every method raises Unavailable while it cannot be reached."""

    # -- API keys ----------------------------------------------------------------------------------------------
    async def create_key(self, tenant_id: str, name: str, sha256: str, *, admin: bool = False) -> ApiKey:
        """Adds a key, known by its secret's hash."""

    async def list_keys(self, tenant_id: str | None = None) -> Sequence[ApiKey]:
        """Every key or a tenant's, oldest first, revoked ones too."""

    async def find_key(self, sha256: str) -> ApiKey | None:
        """The key with this hash; None when there is none or it is revoked."""

    async def revoke_key(self, key_id: str) -> None:
        """From now on the key opens nothing; again changes nothing. NotFound."""

    async def key_used(self, key_id: str) -> None:
        """Notes that the key is in use, to ten minutes."""

    # -- what was asked ----------------------------------------------------------------------------------------
    async def replayed(self, tenant_id: str, once: Once) -> Job | None:
        """The job that this idempotency key has made in the last 24 hours. Conflict when it came with another request,
        or its job is deleted.
        """

    # -- what was used -----------------------------------------------------------------------------------------
    async def usage(self, tenant_id: str, *, since: datetime | None = None, until: datetime | None = None) -> Usage:
        """A tenant's sums over whole hours; the last 24 by default."""

    def usage_rows(
        self, *, tenant_id: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[Rows]:
        """Every ended attempt of the ledger with the facts of its job, in the order of their ends, in pages."""

    def charge_rows(
        self, *, tenant_id: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[Rows]:
        """Every charge of the ledger, oldest first, in pages."""


class SqlTenancy:
    """`TenancyStore` over SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_key(self, tenant_id: str, name: str, sha256: str, *, admin: bool = False) -> ApiKey:
        async with self._database.write() as tx:
            return await keys.create(tx, tenant_id, name, sha256, admin)

    async def list_keys(self, tenant_id: str | None = None) -> Sequence[ApiKey]:
        async with self._database.read() as tx:
            return await keys.read(tx, tenant_id)

    async def find_key(self, sha256: str) -> ApiKey | None:
        async with self._database.read() as tx:
            return await keys.find(tx, sha256)

    async def revoke_key(self, key_id: str) -> None:
        async with self._database.write() as tx:
            await keys.revoke(tx, key_id)

    async def key_used(self, key_id: str) -> None:
        async with self._database.write() as tx:
            await keys.used(tx, key_id)

    async def replayed(self, tenant_id: str, once: Once) -> Job | None:
        async with self._database.read() as tx:
            job_id = await idempotency.find(tx, tenant_id, once)
            return None if job_id is None else await reading.read_job(tx, job_id, tenant_id)

    async def usage(self, tenant_id: str, *, since: datetime | None = None, until: datetime | None = None) -> Usage:
        async with self._database.read() as tx:
            return await usage.read(tx, tenant_id, since, until)

    async def usage_rows(
        self, *, tenant_id: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[Rows]:
        async with self._database.read() as tx:
            async for page in usage.attempts(tx, tenant_id, since, until):
                yield page

    async def charge_rows(
        self, *, tenant_id: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncIterator[Rows]:
        async with self._database.read() as tx:
            async for page in usage.charged(tx, tenant_id, since, until):
                yield page
