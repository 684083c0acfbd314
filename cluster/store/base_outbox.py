"""The part of the job store's contract that reaches outside: the feed of events, the outbox, the webhook secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cluster.deliveries import Backlog, Outcome, Parcel, ParcelPage, ParcelState
from cluster.records import Event, Job


class OutboxStore(Protocol):
    """What readers of the log and senders need. Parcels are written by the store itself, with their events."""

    async def feed(self, cursors: Mapping[str, int], *, limit: int = 100) -> Mapping[str, Sequence[Event]]:
        """New events of many jobs, whoever asks: by job, at most `limit` behind its sequence number, in order, empty
        when there are none. A job that is unknown or deleted is left out.
        """

    async def claim_parcels(
        self, *, limit: int, per_host: int, lease_s: float, room: Mapping[str, int]
    ) -> Sequence[Parcel]:
        """Takes at most `limit` due parcels, the longest due hosts first: of each at most `per_host`, or what `room`
        has for it. Each becomes SENDING under a new epoch, and due again when the lease ends. Two claims never share
        one.
        """

    async def renew_parcels(self, parcels: Sequence[Parcel], lease_s: float) -> None:
        """Moves the ends of the leases that are still held; the others are left alone."""

    async def settle_parcel(self, parcel: Parcel, outcome: Outcome) -> bool:
        """Records an attempt; False, and nothing is written, when the lease has passed to somebody else. What waited
        for a parcel is due once that one is DELIVERED or DEAD.
        """

    async def parcel_subject(self, parcel: Parcel) -> tuple[Job, Event] | None:
        """The job and the event that a parcel tells of; None when the job was deleted."""

    async def parcels(
        self,
        tenant_id: str | None,
        *,
        states: Sequence[ParcelState] = (),
        job_id: str | None = None,
        after: str | None = None,
        limit: int = 20,
    ) -> ParcelPage:
        """Parcels, the newest first; `tenant_id` None = of all tenants. NotFound when `after` does not exist."""

    async def resend_parcel(self, parcel_id: str, tenant_id: str | None) -> Parcel:
        """A settled parcel becomes due again with all its attempts. NotFound; Conflict while it is being tried."""

    async def backlog(self) -> Backlog:
        """What is not delivered, of all tenants."""

    async def purge_parcels(self, keep_s: float) -> None:
        """Removes parcels that were settled `keep_s` ago. Those of swept and deleted jobs go with their jobs."""

    async def webhook_secrets(self, tenant_id: str) -> Sequence[str]:
        """What signs the tenant's webhooks now, the current secret first; the first one is made by asking."""

    async def rotate_webhook_secret(self, tenant_id: str, *, overlap_s: float) -> Sequence[str]:
        """A new current secret; the one before signs beside it for `overlap_s` more."""
