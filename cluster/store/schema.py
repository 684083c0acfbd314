"""The tables of the job store.

Every index is named after the question it answers; the partial ones hold living rows only, so that neither the
Scheduler's polls nor a listing grow with the history. A stage row repeats four facts of its job that never change
(`tenant_id`, `job_number`, `rank`, `due_at`), because an index cannot span two tables.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
    literal_column,
)

from cluster.records import JobState, StageState

END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)  # `due_at` of a job without deadline: sorts behind every deadline


class Utc(TypeDecorator[datetime]):
    """A UTC moment. SQLite keeps it as text without a zone; Python always sees an aware datetime."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


JsonColumn = JSON(none_as_null=True)  # no JSONB: it refuses U+0000. No query looks inside; what one needs is a column
Number = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself in SQLite

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tenants = Table(
    "tenants",
    METADATA,
    Column("id", String, primary_key=True),
    Column("created_at", Utc, nullable=False),
)

jobs = Table(
    "jobs",
    METADATA,
    Column("number", Number, primary_key=True, autoincrement=True),  # creation order
    Column("id", String, nullable=False, unique=True),
    Column("tenant_id", String, ForeignKey("tenants.id"), nullable=False),
    Column("model", String, nullable=False),
    Column("graph", String, nullable=False),
    Column("request", JsonColumn, nullable=False),
    Column("state", String, nullable=False),
    Column("phase", String, nullable=False),
    Column("progress", Float, nullable=False),  # as shown to clients: never falls
    Column("created_at", Utc, nullable=False),
    Column("started_at", Utc),
    Column("finished_at", Utc),
    Column("deadline_at", Utc),
    Column("expires_at", Utc),  # of a living job: it ends EXPIRED; of a DONE one: its results go
    Column("n", Integer, nullable=False),  # results asked for
    Column("ttl_s", Float),  # how long the results are kept, when the request says so
    Column("ends_at", Utc),  # the earlier of deadline_at and expires_at as created
    Column("deleted_at", Utc),
    Column("failure", JsonColumn),
    Column("last_seq", Integer, nullable=False),  # of its events
    Column("swept", SmallInteger, nullable=False),  # 0 nothing, 1 working files, 2 results too
    Column("sweep_at", Utc),  # from when its working files may go: no cancelled worker holds a lease any more
    Column("told_percent", SmallInteger, nullable=False),  # of the last `progress` event
    Column("told_at", Utc),
    Column("price_micro_usd", Number, nullable=False, server_default="0"),  # of one result, as of creation
    Column("trace", String),  # as a W3C traceparent
    sqlite_autoincrement=True,
)

tasks = Table(
    "tasks",  # what callers call their jobs
    METADATA,
    Column("tenant_id", String, ForeignKey("tenants.id"), primary_key=True),
    Column("task_id", String, primary_key=True),  # lower case
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    sqlite_with_rowid=False,
)

stages = Table(
    "stages",
    METADATA,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("stage", String, primary_key=True),
    Column("result", Integer, primary_key=True),  # 0 for what all results share
    Column("chunk", Integer, primary_key=True),
    Column("position", Integer, nullable=False),  # in the graph
    Column("weight", Float, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("inputs", JsonColumn, nullable=False),  # port → [stage, chunk, port, result]
    Column("tenant_id", String, nullable=False),
    Column("job_number", Number, nullable=False),
    Column("rank", Integer, nullable=False),  # −priority: smaller runs earlier
    Column("due_at", Utc, nullable=False),
    Column("state", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),  # claims that were not released
    Column("losses", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("snapshot_step", Integer, nullable=False),
    Column("snapshot", JsonColumn),
    Column("outputs", JsonColumn),  # port → handle
    Column("worker", String),
    Column("ready_at", Utc),
    Column("dispatched_at", Utc),
    Column("claimed_at", Utc),
    Column("done_at", Utc),
    Column("lease_until", Utc),
    Column("devices", Integer, nullable=False, server_default="0"),  # that the present attempt computes on
    Column("busy_s", Float, nullable=False, server_default="0"),  # compute time of the present attempt, as reported
    Column("saved_s", Float, nullable=False, server_default="0"),  # of that, what its newest snapshot holds
)

events = Table(
    "events",
    METADATA,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("type", String, nullable=False),
    Column("data", JsonColumn, nullable=False),
    Column("at", Utc, nullable=False),
    sqlite_with_rowid=False,
)

results = Table(
    "results",
    METADATA,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("seed", Number, nullable=False),
    Column("artifact", JsonColumn, nullable=False),
    Column("published_at", Utc, nullable=False),
)

segments = Table(
    "segments",
    METADATA,
    Column("job_id", String, primary_key=True),
    Column("result", Integer, primary_key=True),
    Column("chunk", Integer, primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("stage", String, nullable=False),
    Column("epoch", Integer, nullable=False),  # of the attempt that wrote it
    Column("uri", String, nullable=False),
    Column("init_uri", String, nullable=False),
    Column("nbytes", Number, nullable=False),
    Column("first_frame", Integer, nullable=False),
    Column("frames", Integer, nullable=False),
    Column("duration_s", Float, nullable=False),
    ForeignKeyConstraint(
        ["job_id", "stage", "result", "chunk"],
        ["stages.job_id", "stages.stage", "stages.result", "stages.chunk"],
    ),
)

files = Table(
    "files",
    METADATA,
    Column("number", Number, primary_key=True, autoincrement=True),  # creation order
    Column("id", String, nullable=False, unique=True),
    Column("tenant_id", String, ForeignKey("tenants.id"), nullable=False),
    Column("filename", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("uri", String, nullable=False),
    Column("nbytes", Number, nullable=False),
    Column("sha256", String, nullable=False),
    Column("info", JsonColumn, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("deleted_at", Utc),
    Column("swept", Boolean, nullable=False),  # its bytes are gone; the row stays as a place in listings
    sqlite_autoincrement=True,
)

workers = Table(
    "workers",
    METADATA,
    Column("id", String, primary_key=True),
    Column("pool", String, nullable=False),
    Column("slots", JsonColumn, nullable=False),
    Column("node", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("seen_at", Utc, nullable=False),
    Column("loaded", JsonColumn, nullable=False, server_default="[]"),
)

leaders = Table(
    "leaders",
    METADATA,
    Column("role", String, primary_key=True),  # the first migration writes the one row
    Column("owner", String),  # null after a resignation
    Column("term", Integer, nullable=False),
    Column("until", Utc),
)


def literal(state: JobState | StageState) -> ColumnElement[str]:
    """A state inside the statement's text: a partial index is only used when the planner sees the value."""
    return literal_column(f"'{state.value}'")


VISIBLE = jobs.c.deleted_at.is_(None)
MAY_EXPIRE = jobs.c.state.in_([literal(JobState.QUEUED), literal(JobState.RUNNING)]) & jobs.c.ends_at.is_not(None)
UNSWEPT = (jobs.c.swept == literal_column("0")) & jobs.c.sweep_at.is_not(None)
KEPT = (jobs.c.swept == literal_column("1")) & jobs.c.expires_at.is_(None)
KEPT_UNTIL = (jobs.c.swept == literal_column("1")) & jobs.c.expires_at.is_not(None)
STORED = files.c.swept == literal_column("false")
READY = stages.c.state == literal(StageState.READY)
DISPATCHED = stages.c.state == literal(StageState.DISPATCHED)
CLAIMED = stages.c.state == literal(StageState.CLAIMED)
HELD = stages.c.state.in_([literal(StageState.DISPATCHED), literal(StageState.CLAIMED)])


def _partial(name: str, where: ColumnElement[bool], *columns: Column[Any]) -> Index:
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


_partial("ix_jobs_listing", VISIBLE, jobs.c.tenant_id, jobs.c.number)
_partial("ix_jobs_listing_by_state", VISIBLE, jobs.c.tenant_id, jobs.c.state, jobs.c.number)
_partial("ix_jobs_counts", VISIBLE, jobs.c.state)
Index("ix_jobs_arrivals", jobs.c.tenant_id, jobs.c.created_at)
_partial("ix_jobs_overdue", MAY_EXPIRE, jobs.c.ends_at)
_partial("ix_jobs_unswept", UNSWEPT, jobs.c.sweep_at)
_partial("ix_jobs_kept", KEPT, jobs.c.finished_at)
_partial("ix_jobs_kept_until", KEPT_UNTIL, jobs.c.expires_at)
_partial("ix_files_listing", STORED, files.c.tenant_id, files.c.number)
_partial("ix_files_expiring", STORED, files.c.expires_at)
_partial("ix_files_deleted", STORED & files.c.deleted_at.is_not(None), files.c.deleted_at)
_partial("ix_stages_urgent", READY, stages.c.stage, stages.c.rank, stages.c.due_at, stages.c.job_number)
_partial("ix_stages_oldest", READY, stages.c.stage, stages.c.job_number)
_partial(
    "ix_stages_tenant_urgent",
    READY,
    stages.c.stage,
    stages.c.tenant_id,
    stages.c.rank,
    stages.c.due_at,
    stages.c.job_number,
)
_partial("ix_stages_tenant_oldest", READY, stages.c.stage, stages.c.tenant_id, stages.c.job_number)
_partial("ix_stages_held", HELD, stages.c.stage)
_partial("ix_stages_unclaimed", DISPATCHED, stages.c.dispatched_at)
_partial("ix_stages_leases", CLAIMED, stages.c.lease_until)
