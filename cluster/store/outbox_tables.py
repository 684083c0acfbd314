"""The tables of the outbox: what is owed to receivers outside, and the secrets that sign it."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table

from cluster.store.schema import METADATA, Number, Utc

deliveries = Table(
    "deliveries",
    METADATA,
    Column("number", Number, primary_key=True, autoincrement=True),  # creation order
    Column("id", String, nullable=False, unique=True),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("tenant_id", String, nullable=False),
    Column("seq", Integer, nullable=False),  # of the event
    Column("kind", String, nullable=False),
    Column("url", String, nullable=False),
    Column("host", String, nullable=False),
    Column("result", Integer),
    Column("state", String, nullable=False),
    Column("epoch", Integer, nullable=False),  # claims
    Column("attempts", Integer, nullable=False),
    Column("next_at", Utc, nullable=False),  # due; of one that is being sent: its lease ends, so it is due again
    Column("waits_for", String),  # id of the delivery that must be settled first
    Column("last_status", Integer),
    Column("last_error", String),
    Column("created_at", Utc, nullable=False),
    Column("settled_at", Utc),  # null exactly while pending or sending
    sqlite_autoincrement=True,
)

webhook_secrets = Table(
    "webhook_secrets",
    METADATA,
    Column("tenant_id", String, primary_key=True),
    Column("generation", Integer, primary_key=True),  # the largest is the current one
    Column("secret", String, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("retires_at", Utc),  # until then a rotated secret signs too
)

OPEN = deliveries.c.settled_at.is_(None) & deliveries.c.waits_for.is_(None)
WAITING = deliveries.c.waits_for.is_not(None)
SETTLED = deliveries.c.settled_at.is_not(None)

Index("ix_deliveries_due", deliveries.c.host, deliveries.c.next_at, sqlite_where=OPEN, postgresql_where=OPEN)
Index("ix_deliveries_waiting", deliveries.c.waits_for, sqlite_where=WAITING, postgresql_where=WAITING)
Index("ix_deliveries_settled", deliveries.c.settled_at, sqlite_where=SETTLED, postgresql_where=SETTLED)
Index("ix_deliveries_job", deliveries.c.job_id)
Index("ix_deliveries_listing", deliveries.c.tenant_id, deliveries.c.number)
Index("ix_deliveries_listing_by_state", deliveries.c.tenant_id, deliveries.c.state, deliveries.c.number)
Index("ix_deliveries_counts", deliveries.c.state, deliveries.c.kind)
