"""The outbox's part of the job store on a SQL database: each method is one transaction, a claim one more reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.deliveries import Backlog, Outcome, Parcel, ParcelPage, ParcelState
from cluster.errors import NotFound
from cluster.records import Event, Job
from cluster.store import feed, outbox, reading, webhook_secrets
from cluster.store.database import Database


class SqlOutbox:
    """`OutboxStore` over SQLAlchemy Core."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def feed(self, cursors: Mapping[str, int], *, limit: int = 100) -> Mapping[str, Sequence[Event]]:
        async with self._database.read() as tx:
            return await feed.read(tx, cursors, limit)

    async def claim_parcels(
        self, *, limit: int, per_host: int, lease_s: float, room: Mapping[str, int]
    ) -> Sequence[Parcel]:
        async with self._database.read() as tx:  # an idle poll takes no write lock
            ids = await outbox.find_due(tx, limit, per_host, room)
        if not ids:
            return []
        async with self._database.write(durable=False) as tx:  # what a power cut undoes is sent again
            return await outbox.claim(tx, ids, lease_s)

    async def renew_parcels(self, parcels: Sequence[Parcel], lease_s: float) -> None:
        async with self._database.write(durable=False) as tx:
            await outbox.renew(tx, parcels, lease_s)

    async def settle_parcel(self, parcel: Parcel, outcome: Outcome) -> bool:
        async with self._database.write() as tx:
            return await outbox.settle(tx, parcel, outcome)

    async def parcel_subject(self, parcel: Parcel) -> tuple[Job, Event] | None:
        async with self._database.read() as tx:
            try:
                job = await reading.read_job(tx, parcel.job_id, parcel.tenant_id)
            except NotFound:
                return None
            told = await feed.read(tx, {job.id: parcel.seq - 1}, 1)
            return job, told[job.id][0]

    async def parcels(
        self,
        tenant_id: str | None,
        *,
        states: Sequence[ParcelState] = (),
        job_id: str | None = None,
        after: str | None = None,
        limit: int = 20,
    ) -> ParcelPage:
        async with self._database.read() as tx:
            return await outbox.read_page(tx, tenant_id, states, job_id, after, limit)

    async def resend_parcel(self, parcel_id: str, tenant_id: str | None) -> Parcel:
        async with self._database.write() as tx:
            return await outbox.resend(tx, parcel_id, tenant_id)

    async def backlog(self) -> Backlog:
        async with self._database.read() as tx:
            return await outbox.read_backlog(tx)

    async def purge_parcels(self, keep_s: float) -> None:
        async with self._database.write(durable=False) as tx:
            await outbox.purge(tx, keep_s)

    async def webhook_secrets(self, tenant_id: str) -> Sequence[str]:
        async with self._database.read() as tx:
            found = await webhook_secrets.read(tx, tenant_id)
        if found:
            return found
        async with self._database.write() as tx:
            await webhook_secrets.renew(tx, tenant_id, 0.0, only_first=True)
            return await webhook_secrets.read(tx, tenant_id)

    async def rotate_webhook_secret(self, tenant_id: str, *, overlap_s: float) -> Sequence[str]:
        async with self._database.write() as tx:
            await webhook_secrets.renew(tx, tenant_id, overlap_s, only_first=False)
            return await webhook_secrets.read(tx, tenant_id)
