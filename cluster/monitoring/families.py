"""The registry of metrics: every family with its type, unit, labels and meaning.

Replicas export through Ray, which puts `ray_` before the name and adds labels that say where a series comes from
(application, deployment, replica, NodeAddress, WorkerId …). Ray rebuilds a histogram's sum from the middles of its
buckets, so means are as coarse as those. No value of a label of ours is free text: a domain is
closed, or holds the first few values that a process has seen, and everything else is `OTHER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.deliveries import ParcelKind, ParcelState
from cluster.plans import BUCKETS
from cluster.policy.autoscale import Cause
from cluster.pools import STAGES
from cluster.records import JobState, Verdict
from cluster.registry import MODELS

OTHER = "other"
RAY = "ray_"  # what Ray puts before every name
Type = Literal["counter", "gauge", "histogram"]
Role = Literal["replica", "group", "scheduler", "courier", "autoscaler", "every"]


@dataclass(frozen=True, slots=True)
class Domain:
    """The values that a label may have: a closed set, or the first `most` that appear."""

    values: frozenset[str] | None = None
    most: int = 0

    def __post_init__(self) -> None:
        if (self.values is None) == (self.most == 0):
            raise ValueError("a domain is either a closed set or open for a few values")

    @property
    def size(self) -> int:
        """The most values that one process can export, `OTHER` included."""
        return 1 + (self.most if self.values is None else len(self.values))


def _closed(*values: str) -> Domain:
    return Domain(frozenset(values))


FAILURES = (
    "generation_failed", "out_of_memory", "non_finite", "damaged_file", "worker_lost", "not_claimed", "not_found",
    "invalid_media", "unsupported_operation", "service_unavailable", "checkpoint_error", "deadline_exceeded", "expired",
    "cancelled",
)  # fmt: skip
OUTCOMES = ("done", "failed", "lost", "released", "cancelled", "expired")
BREAKS = ("death", "hang", "collective", "protocol", "start", "load", "stopped")

LABELS: Mapping[str, Domain] = {
    "stage": _closed(*STAGES),
    "model": _closed(*MODELS),
    "resolution": _closed(*BUCKETS),
    "degree": _closed(*map(str, range(1, 65))),
    "pool": Domain(most=24),
    "tenant": Domain(most=24),
    "state": _closed(*(state.value for state in JobState), *(state.value for state in ParcelState)),
    "code": _closed(*FAILURES),
    "reason": _closed(*FAILURES, *OUTCOMES, *BREAKS, *(verdict.value for verdict in Verdict)),
    "event": _closed(*(f"rank_{kind}" for kind in BREAKS), "lease_expired", "call_lost", "misplaced"),
    "kind": _closed(*(kind.value for kind in ParcelKind)),
    "outcome": _closed(*(state.value for state in ParcelState)),
    "operation": _closed("read", "write", "light_write"),
    "part": _closed("claim", "get", "put", "complete", "plan", "dispatch", "prepare", "finish"),
    "found": _closed("memory", "store", "flight", "nothing"),
    "path": _closed("memory", "object_store", "file"),
    "direction": _closed("read", "write", "up", "down", "hold"),
    "cause": _closed("start", "exchange"),
    "why": _closed(*(cause.value for cause in Cause)),
}

BOUNDARY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `unit` is the base unit; a name ends with it, and a counter's with `_total`."""

    name: str
    type: Type
    help: str
    role: Role  # who exports it
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: Sequence[float] = ()


def _counter(name: str, help_text: str, role: Role, *labels: str, unit: str = "") -> Family:
    return Family(name, "counter", help_text, role, labels, unit)


def _gauge(name: str, help_text: str, role: Role, *labels: str, unit: str = "") -> Family:
    return Family(name, "gauge", help_text, role, labels, unit)


def _seconds(name: str, help_text: str, role: Role, *labels: str, buckets: Sequence[float] = SECONDS) -> Family:
    return Family(name, "histogram", help_text, role, labels, "seconds", buckets)


_ALL = (
    # -- jobs
    _gauge("skyreels_jobs", "Jobs by state.", "scheduler", "state"),
    _counter("skyreels_jobs_total", "Jobs that ended, by their last state.", "every", "state", "model"),
    _seconds("skyreels_job_seconds", "Time from a job's creation to its completion.", "every", "model"),
    _counter("skyreels_job_failures_total", "Jobs that failed, by reason.", "every", "code"),
    _counter("skyreels_tenant_jobs_total", "Jobs that ended, by tenant.", "every", "tenant", "state"),
    _gauge("skyreels_tenant_ready", "Stage calls that wait for a slot, by tenant.", "scheduler", "tenant"),
    _gauge(
        "skyreels_tenant_device_seconds",
        "Device time that a waiting tenant has had in the hours that fairness looks at.",
        "scheduler",
        "tenant",
        unit="seconds",
    ),
    # -- the queue
    _seconds("skyreels_queue_seconds", "Time a stage was ready before it was dispatched.", "scheduler", "stage"),
    _gauge(
        "skyreels_queue_oldest_seconds",
        "How long the oldest ready call of a stage waits.",
        "scheduler",
        "stage",
        unit="seconds",
    ),
    _gauge("skyreels_stage_ready", "Stage calls that wait for a slot.", "scheduler", "stage"),
    _gauge("skyreels_stage_busy", "Stage calls dispatched or running.", "scheduler", "stage"),
    _gauge("skyreels_stage_slots", "Slots of live replicas.", "scheduler", "stage"),
    _counter("skyreels_dispatched_total", "Stage calls sent.", "scheduler", "stage"),
    _counter("skyreels_lost_total", "Stage calls whose worker died.", "scheduler", "stage"),
    _gauge(
        "skyreels_hint_bytes",
        "Memory of hand-off values that the leading Scheduler keeps for their readers.",
        "scheduler",
        unit="bytes",
    ),
    _gauge("skyreels_scheduler_leading", "1 while this Scheduler leads.", "scheduler"),
    # -- stages
    _seconds("skyreels_stage_seconds", "Time one stage call worked.", "replica", "stage", "model"),
    _seconds(
        "skyreels_step_seconds", "Time of one denoising step.", "group", "model", "resolution", "degree"
    ),
    _counter("skyreels_stage_failures_total", "Calls that ended in an error.", "replica", "stage", "code"),
    _counter("skyreels_retries_total", "Stages that became ready again.", "every", "stage", "reason"),
    _counter(
        "skyreels_useful_seconds_total",
        "Device time of attempts that jobs went on with.",
        "every",
        "stage",
        unit="seconds",
    ),
    _counter(
        "skyreels_wasted_seconds_total",
        "Device time whose result was thrown away.",
        "every",
        "stage",
        "reason",
        unit="seconds",
    ),
    _seconds(
        "skyreels_model_load_seconds", "Time until a replica's weights were loaded.", "replica", "pool", "cause"
    ),
    _seconds(
        "skyreels_boundary_seconds", "Time of one part of a stage boundary.", "replica", "part", buckets=BOUNDARY_S
    ),
    _counter(
        "skyreels_handoff_bytes_total",
        "Bytes of values written for other stages and read from them.",
        "replica",
        "path",
        "direction",
        unit="bytes",
    ),
    _counter("skyreels_handoff_copies_total", "Whole values duplicated in memory by a hand-off.", "replica", "path"),
    _counter(
        "skyreels_cache_lookups_total", "Encodings asked for, by where they were found.", "replica", "stage", "found"
    ),
    _gauge("skyreels_cache_memory_bytes", "Encodings that a replica keeps in memory.", "replica", unit="bytes"),
    _gauge("skyreels_cache_store_bytes", "Encodings kept among the artifacts.", "scheduler", unit="bytes"),
    _counter("skyreels_cache_evictions_total", "Stored encodings that were removed.", "scheduler"),
    # -- groups
    _gauge("skyreels_group_residents", "Jobs whose latents the ranks hold.", "group"),
    _gauge("skyreels_group_places", "Jobs that a group can hold.", "group"),
    _counter("skyreels_group_busy_seconds_total", "Time spent in steps.", "group", unit="seconds"),
    _counter("skyreels_group_rebuilds_total", "Times all ranks were made anew.", "group", "reason"),
    _gauge(
        "skyreels_snapshot_age_seconds",
        "Work of a resident job since its newest snapshot, the largest of a group.",
        "group",
        unit="seconds",
    ),
    _counter("skyreels_watchdog_events_total", "What watching found.", "every", "event"),
    # -- receivers and stores
    _counter("skyreels_deliveries_total", "Attempts to deliver.", "courier", "kind", "outcome"),
    _seconds("skyreels_delivery_seconds", "Time of one attempt.", "courier", "kind"),
    _gauge("skyreels_deliveries", "Deliveries that are not made.", "scheduler", "kind", "state"),
    _gauge(
        "skyreels_delivery_oldest_due_seconds", "How long the oldest due one waits.", "scheduler", unit="seconds"
    ),
    _seconds(
        "skyreels_store_seconds", "Time of one transaction.", "every", "operation", buckets=BOUNDARY_S
    ),
    _counter(
        "skyreels_store_outages_total", "Transactions that the store did not answer.", "every", "operation"
    ),
    # -- scaling
    _gauge("skyreels_autoscale_replicas", "Replicas that scaling asks for.", "autoscaler", "pool"),
    _gauge(
        "skyreels_autoscale_backlog_seconds",
        "Work that waits and runs, in seconds of one slot.",
        "autoscaler",
        "pool",
        unit="seconds",
    ),
    _counter(
        "skyreels_autoscale_decisions_total",
        "Decisions by direction and reason.",
        "autoscaler",
        "pool",
        "direction",
        "why",
    ),
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}
