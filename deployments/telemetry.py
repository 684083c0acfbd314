"""JSON logs with the job in every line, and the metric families of the replicas.

Replicas export through Ray (`ray.serve.metrics`: name prefix `ray_`, tags application, deployment, replica added);
the Api adds cluster-wide gauges read from the job store (`deployments.api.metrics`).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Protocol

from ray.serve import metrics

LOGGER = "skyreels"
_context: ContextVar[Mapping[str, str | int]] = ContextVar("log_context", default={})  # noqa: B039 (never mutated)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, message, the bound context, the record's own `extra` fields."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "context", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "context", {}),
            **{key: value for key, value in vars(record).items() if key not in self._STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def _attach_context(record: logging.LogRecord) -> bool:
    record.context = _context.get()
    return True


def logger() -> logging.Logger:
    """The process's logger, writing JSON lines to standard error."""
    log = logging.getLogger(LOGGER)
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        handler.addFilter(_attach_context)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


@contextmanager
def bound(**fields: str | int) -> Iterator[None]:
    """Adds fields (job, stage, chunk, attempt, request_id) to every line logged inside the block."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


BOUNDARY_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5]
SECONDS_BUCKETS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]


class Laps:
    """Seconds that one piece of work spent in its parts; each part may run several times."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    @contextmanager
    def lap(self, part: str) -> Iterator[None]:
        """Adds the time of the block to a part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - began)

    def add(self, part: str, seconds: float) -> None:
        """Adds time to a part."""
        self._spent[part] = self._spent.get(part, 0.0) + seconds

    def items(self) -> list[tuple[str, float]]:
        """Parts with their seconds."""
        return list(self._spent.items())

    def told(self) -> dict[str, float]:
        """As fields of a log line: `get_s` …"""
        return {f"{part}_s": round(seconds, 5) for part, seconds in self._spent.items()}


class BoundaryMetrics:
    """Where the time between stages goes: claim, get, put, complete in workers; plan, dispatch in the Scheduler."""

    def __init__(self) -> None:
        self._seconds = metrics.Histogram(
            "skyreels_boundary_seconds",
            "Time of one part of a stage boundary.",
            boundaries=BOUNDARY_BUCKETS,
            tag_keys=("part",),
        )

    def observe(self, laps: Laps) -> None:
        """One boundary's parts."""
        for part, seconds in laps.items():
            self._seconds.observe(seconds, tags={"part": part})


class Seam(Protocol):
    """Counters of a transport (`deployments.transport.Counters`)."""

    nbytes: Counter[tuple[Any, Any]]
    copies: Counter[Any]


class HandoffMetrics:
    """What crossed this process's transport, by path: memory, object_store, file."""

    def __init__(self) -> None:
        self._nbytes = metrics.Counter(
            "skyreels_handoff_bytes_total",
            "Bytes of values written for other stages and read from them.",
            tag_keys=("path", "direction"),
        )
        self._copies = metrics.Counter(
            "skyreels_handoff_copies_total", "Whole values duplicated in memory by a hand-off.", tag_keys=("path",)
        )
        self._published: Counter[tuple[str, ...]] = Counter()

    def publish(self, seam: Seam) -> None:
        """Exports what the counters have grown by since the last time."""
        for (path, direction), total in seam.nbytes.items():
            self._grow(self._nbytes, total, {"path": path, "direction": direction})
        for path, total in seam.copies.items():
            self._grow(self._copies, total, {"path": path})

    def _grow(self, counter: metrics.Counter, total: int, tags: dict[str, str]) -> None:
        key = tuple(tags.values())
        if total > self._published[key]:
            counter.inc(total - self._published[key], tags=tags)
            self._published[key] = total


class StageMetrics:
    """What a stage replica counts. Units are in the names; label values come from bounded sets."""

    def __init__(self) -> None:
        by_stage = ("stage", "model")
        self.stage_seconds = metrics.Histogram(
            "skyreels_stage_seconds", "Time one stage call worked.", boundaries=SECONDS_BUCKETS, tag_keys=by_stage
        )
        self.step_seconds = metrics.Histogram(
            "skyreels_step_seconds",
            "Time of one denoising step.",
            boundaries=SECONDS_BUCKETS,
            tag_keys=("model", "resolution"),
        )
        self.stage_failures = metrics.Counter(
            "skyreels_stage_failures_total", "Stage calls that ended in an error.", tag_keys=("stage", "code")
        )
        self.wasted_seconds = metrics.Counter(
            "skyreels_wasted_seconds_total", "Stage time whose result was thrown away.", tag_keys=("stage", "reason")
        )
        self.handoff = HandoffMetrics()
        self.boundary = BoundaryMetrics()


class GroupMetrics:
    """What a denoiser group's controller counts. The busy share is the rate of `busy_seconds`."""

    def __init__(self) -> None:
        self.rebuilds = metrics.Counter(
            "skyreels_group_rebuilds_total", "Times all ranks were ended and made anew.", tag_keys=("reason",)
        )
        self.residents = metrics.Gauge("skyreels_group_residents", "Jobs whose latents the ranks hold.")
        self.busy_seconds = metrics.Counter("skyreels_group_busy_seconds_total", "Time spent in steps.")


class AutoscaleMetrics:
    """What the autoscaling policy in Serve's controller decides."""

    def __init__(self) -> None:
        self._replicas = metrics.Gauge(
            "skyreels_autoscale_replicas", "Replicas that the policy asks for.", tag_keys=("pool",)
        )
        self._backlog = metrics.Gauge(
            "skyreels_autoscale_backlog_seconds", "Work ready and running, in stage time.", tag_keys=("pool",)
        )
        self._decisions = metrics.Counter(
            "skyreels_autoscale_decisions_total", "Decisions of the policy.", tag_keys=("pool", "direction", "why")
        )

    def decided(self, *, pool: str, replicas: int, direction: str, why: str, backlog_s: float) -> None:
        """One decision; `direction` is up, down or hold."""
        self._replicas.set(replicas, tags={"pool": pool})
        self._backlog.set(backlog_s, tags={"pool": pool})
        self._decisions.inc(tags={"pool": pool, "direction": direction, "why": why})


class CourierMetrics:
    """What a Courier counts. An outcome is the state that the delivery is in after the attempt."""

    def __init__(self) -> None:
        self.attempts = metrics.Counter(
            "skyreels_deliveries_total", "Attempts to deliver.", tag_keys=("kind", "outcome")
        )
        self.seconds = metrics.Histogram(
            "skyreels_delivery_seconds", "Time of one attempt.", boundaries=SECONDS_BUCKETS, tag_keys=("kind",)
        )


class SchedulerMetrics:
    """What the leading Scheduler counts."""

    def __init__(self) -> None:
        self.queue_seconds = metrics.Histogram(
            "skyreels_queue_seconds",
            "Time a stage was ready before it was dispatched.",
            boundaries=SECONDS_BUCKETS,
            tag_keys=("stage",),
        )
        self.dispatched = metrics.Counter("skyreels_dispatched_total", "Stage calls sent.", tag_keys=("stage",))
        self.lost = metrics.Counter("skyreels_lost_total", "Stage calls whose worker died.", tag_keys=("stage",))
        self.jobs = metrics.Counter("skyreels_jobs_total", "Jobs that ended.", tag_keys=("state",))
        self.hint_nbytes = metrics.Gauge(
            "skyreels_hint_bytes", "Memory of hand-off values that the leading Scheduler keeps for their readers."
        )
        self.boundary = BoundaryMetrics()
        self.leading = metrics.Gauge("skyreels_scheduler_leading", "1 while this Scheduler leads.")
