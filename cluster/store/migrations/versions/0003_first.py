"""The first schema: tenants, jobs, their stages, events and results, workers, and who leads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"  # 0001 and 0002 were drafts of it: a database of theirs is refused, not guessed at
down_revision = None

MOMENT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    """Builds the schema from nothing."""
    op.create_table(
        "leaders",
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("owner", sa.String()),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("until", MOMENT),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_leaders")),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("slots", DOCUMENT, nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "jobs",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("graph", sa.String(), nullable=False),
        sa.Column("request", DOCUMENT, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("deadline_at", MOMENT),
        sa.Column("expires_at", MOMENT),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("ttl_s", sa.Float()),
        sa.Column("ends_at", MOMENT),
        sa.Column("deleted_at", MOMENT),
        sa.Column("failure", DOCUMENT),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("swept", sa.SmallInteger(), nullable=False),
        sa.Column("sweep_at", MOMENT),
        sa.Column("told_percent", sa.SmallInteger(), nullable=False),
        sa.Column("told_at", MOMENT),
        sa.Column("price_micro_usd", NUMBER, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_jobs_tenant_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tasks",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "task_id", name=op.f("pk_tasks")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_tasks_tenant_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_tasks_job_id")),
        sqlite_with_rowid=False,
    )
    _partial("ix_jobs_kept", "jobs", ["finished_at"], "swept = 1 AND expires_at IS NULL")
    _partial("ix_jobs_kept_until", "jobs", ["expires_at"], "swept = 1 AND expires_at IS NOT NULL")
    _partial("ix_jobs_listing", "jobs", ["tenant_id", "number"], "deleted_at IS NULL")
    _partial("ix_jobs_listing_by_state", "jobs", ["tenant_id", "state", "number"], "deleted_at IS NULL")
    _partial("ix_jobs_counts", "jobs", ["state"], "deleted_at IS NULL")
    op.create_index("ix_jobs_arrivals", "jobs", ["tenant_id", "created_at"])
    _partial("ix_jobs_overdue", "jobs", ["ends_at"], "state IN ('queued', 'running') AND ends_at IS NOT NULL")
    _partial("ix_jobs_unswept", "jobs", ["sweep_at"], "swept = 0 AND sweep_at IS NOT NULL")
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("data", DOCUMENT, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id")),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_events")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "stages",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("result", sa.Integer(), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("inputs", DOCUMENT, nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("job_number", NUMBER, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("snapshot_step", sa.Integer(), nullable=False),
        sa.Column("snapshot", DOCUMENT),
        sa.Column("outputs", DOCUMENT),
        sa.Column("worker", sa.String()),
        sa.Column("ready_at", MOMENT),
        sa.Column("dispatched_at", MOMENT),
        sa.Column("claimed_at", MOMENT),
        sa.Column("done_at", MOMENT),
        sa.Column("lease_until", MOMENT),
        sa.Column("devices", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("busy_s", sa.Float(), nullable=False, server_default="0"),
        sa.Column("saved_s", sa.Float(), nullable=False, server_default="0"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_stages_job_id")),
        sa.PrimaryKeyConstraint("job_id", "stage", "result", "chunk", name=op.f("pk_stages")),
    )
    _partial(
        "ix_stages_tenant_urgent", "stages", ["stage", "tenant_id", "rank", "due_at", "job_number"], "state = 'ready'"
    )
    _partial("ix_stages_tenant_oldest", "stages", ["stage", "tenant_id", "job_number"], "state = 'ready'")
    _partial("ix_stages_held", "stages", ["stage"], "state IN ('dispatched', 'claimed')")
    _partial("ix_stages_leases", "stages", ["lease_until"], "state = 'claimed'")
    _partial("ix_stages_oldest", "stages", ["stage", "job_number"], "state = 'ready'")
    _partial("ix_stages_unclaimed", "stages", ["dispatched_at"], "state = 'dispatched'")
    _partial("ix_stages_urgent", "stages", ["stage", "rank", "due_at", "job_number"], "state = 'ready'")
    op.create_table(
        "results",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("seed", NUMBER, nullable=False),
        sa.Column("artifact", DOCUMENT, nullable=False),
        sa.Column("published_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_results_job_id")),
        sa.PrimaryKeyConstraint("job_id", "index", name=op.f("pk_results")),
    )
    op.create_table(
        "files",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("nbytes", NUMBER, nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("info", DOCUMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT),
        sa.Column("swept", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_files")),
        sa.UniqueConstraint("id", name=op.f("uq_files_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_files_tenant_id")),
        sqlite_autoincrement=True,
    )
    _partial("ix_files_deleted", "files", ["deleted_at"], "swept = false AND deleted_at IS NOT NULL")
    _partial("ix_files_expiring", "files", ["expires_at"], "swept = false")
    _partial("ix_files_listing", "files", ["tenant_id", "number"], "swept = false")
    _outbox()
    _tenancy()
    op.create_table(
        "segments",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("result", sa.Integer(), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("init_uri", sa.String(), nullable=False),
        sa.Column("nbytes", NUMBER, nullable=False),
        sa.Column("first_frame", sa.Integer(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "result", "chunk", "index", name=op.f("pk_segments")),
        sa.ForeignKeyConstraint(
            ["job_id", "stage", "result", "chunk"],
            ["stages.job_id", "stages.stage", "stages.result", "stages.chunk"],
            name=op.f("fk_segments_job_id_stage_result_chunk"),
        ),
    )
    op.bulk_insert(
        sa.table("leaders", sa.column("role", sa.String()), sa.column("term", sa.Integer())),
        [{"role": "scheduler", "term": 0}],
    )


def _outbox() -> None:
    op.create_table(
        "deliveries",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("result", sa.Integer()),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", MOMENT, nullable=False),
        sa.Column("waits_for", sa.String()),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.String()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("id", name=op.f("uq_deliveries_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_deliveries_job_id")),
        sqlite_autoincrement=True,
    )
    _partial("ix_deliveries_due", "deliveries", ["host", "next_at"], "settled_at IS NULL AND waits_for IS NULL")
    _partial("ix_deliveries_waiting", "deliveries", ["waits_for"], "waits_for IS NOT NULL")
    _partial("ix_deliveries_settled", "deliveries", ["settled_at"], "settled_at IS NOT NULL")
    op.create_index("ix_deliveries_job", "deliveries", ["job_id"])
    op.create_index("ix_deliveries_listing", "deliveries", ["tenant_id", "number"])
    op.create_index("ix_deliveries_listing_by_state", "deliveries", ["tenant_id", "state", "number"])
    op.create_index("ix_deliveries_counts", "deliveries", ["state", "kind"])
    op.create_table(
        "webhook_secrets",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("retires_at", MOMENT),
        sa.PrimaryKeyConstraint("tenant_id", "generation", name=op.f("pk_webhook_secrets")),
    )


def _tenancy() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.Column("last_used_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_keys_tenant_id")),
        sa.UniqueConstraint("sha256", name=op.f("uq_keys_sha256")),
    )
    op.create_index("ix_keys_of_tenant", "keys", ["tenant_id"])
    op.create_table(
        "idempotency",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("pk_idempotency")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_idempotency_tenant_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_idempotency_job_id")),
    )
    op.create_index("ix_idempotency_age", "idempotency", ["tenant_id", "created_at"])
    op.create_table(
        "usage",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("result", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String()),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("useful_s", sa.Float(), nullable=False),
        sa.Column("wasted_s", sa.Float(), nullable=False),
        sa.Column("wall_s", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.String()),
        sa.Column("ended_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "stage", "chunk", "result", "epoch", name=op.f("pk_usage")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_usage_job_id")),
    )
    op.create_index("ix_usage_ended", "usage", ["ended_at"])
    op.create_index("ix_usage_of_tenant", "usage", ["tenant_id", "ended_at"])
    op.create_table(
        "tenant_hours",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("hour", MOMENT, nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("useful_s", sa.Float(), nullable=False),
        sa.Column("wasted_s", sa.Float(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "hour", "stage", name=op.f("pk_tenant_hours")),
    )
    op.create_table(
        "charges",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.Column("micro_usd", NUMBER, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "index", name=op.f("pk_charges")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_charges_job_id")),
    )
    op.create_index("ix_charges_at", "charges", ["at"])
    op.create_index("ix_charges_of_tenant", "charges", ["tenant_id", "at"])
