"""The tables of tenancy: keys, what was asked once already, and what was used and charged.

`usage` and `charges` are the ledger: rows are only ever added, in the transaction of the event they are about.
`tenant_hours` is its sum by tenant, hour and stage, kept in the same transactions, so that limits and fairness read a
few rows however long the ledger is.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, String, Table

from cluster.store.schema import METADATA, Number, Utc

keys = Table(
    "keys",
    METADATA,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, ForeignKey("tenants.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("sha256", String, nullable=False, unique=True),  # of the secret, which is kept nowhere
    Column("admin", Boolean, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("revoked_at", Utc),
    Column("last_used_at", Utc),  # coarse
)

idempotency = Table(
    "idempotency",
    METADATA,
    Column("tenant_id", String, ForeignKey("tenants.id"), primary_key=True),
    Column("key", String, primary_key=True),  # the caller's
    Column("fingerprint", String, nullable=False),  # of the request it came with
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Utc, nullable=False),
)

usage = Table(
    "usage",
    METADATA,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("stage", String, primary_key=True),
    Column("chunk", Integer, primary_key=True),
    Column("result", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("worker", String),
    Column("devices", Integer, nullable=False),
    Column("useful_s", Float, nullable=False),  # device-seconds, like wasted_s
    Column("wasted_s", Float, nullable=False),
    Column("wall_s", Float, nullable=False),  # from claim to end
    Column("outcome", String, nullable=False),
    Column("reason", String),  # code of the failure
    Column("ended_at", Utc, nullable=False),
)

tenant_hours = Table(
    "tenant_hours",
    METADATA,
    Column("tenant_id", String, primary_key=True),
    Column("hour", Utc, primary_key=True),  # its beginning
    Column("stage", String, primary_key=True),
    Column("useful_s", Float, nullable=False),
    Column("wasted_s", Float, nullable=False),
    Column("done", Integer, nullable=False),  # attempts that completed
    Column("last_at", Utc, nullable=False),  # the newest end of an attempt
)

charges = Table(
    "charges",
    METADATA,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("index", Integer, primary_key=True),  # of the result
    Column("tenant_id", String, nullable=False),
    Column("model", String, nullable=False),
    Column("seconds", Integer, nullable=False),  # of video
    Column("micro_usd", Number, nullable=False),  # whole millionths of a dollar: sums stay exact on every database
    Column("at", Utc, nullable=False),
)

Index("ix_keys_of_tenant", keys.c.tenant_id)
Index("ix_idempotency_age", idempotency.c.tenant_id, idempotency.c.created_at)
Index("ix_usage_ended", usage.c.ended_at)
Index("ix_usage_of_tenant", usage.c.tenant_id, usage.c.ended_at)
Index("ix_charges_at", charges.c.at)
Index("ix_charges_of_tenant", charges.c.tenant_id, charges.c.at)
