"""JSON logs with the job in every line, and what each kind of process counts.

The families are those of `cluster.monitoring.families`; they leave through Ray (`deployments.instruments`).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Protocol, get_args

from cluster.deliveries import ParcelKind, ParcelState
from cluster.monitoring.families import BREAKS
from cluster.records import TERMINAL_STATES, JobState
from cluster.store.attempts import Attempt
from cluster.store.observer import Ended, Kind, Moment, Retry
from deployments.cluster_metrics import ClusterMetrics
from deployments.instruments import Counter as CounterMetric
from deployments.instruments import Gauge, Histogram

LOGGER = "skyreels"
PATHS = ("memory", "object_store", "file")
USUAL = ("generation_failed", "out_of_memory", "non_finite", "worker_lost")  # why work fails, nearly always
REPEATED = ("worker_lost", "released", "generation_failed")  # why a stage is done again, nearly always
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
        self._seconds = Histogram("skyreels_boundary_seconds")

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
        self._nbytes = CounterMetric("skyreels_handoff_bytes_total")
        self._nbytes.begin(path=PATHS, direction=("read", "write"))
        self._copies = CounterMetric("skyreels_handoff_copies_total")
        self._copies.begin(path=PATHS)
        self._published: Counter[tuple[str, ...]] = Counter()

    def publish(self, seam: Seam) -> None:
        """Exports what the counters have grown by since the last time."""
        for (path, direction), total in seam.nbytes.items():
            self._grow(self._nbytes, total, {"path": path, "direction": direction})
        for path, total in seam.copies.items():
            self._grow(self._copies, total, {"path": path})

    def _grow(self, counter: CounterMetric, total: int, tags: dict[str, str]) -> None:
        key = tuple(tags.values())
        if total > self._published[key]:
            counter.inc(total - self._published[key], tags=tags)
            self._published[key] = total


class CacheMetrics:
    """What a replica's cache of encodings is asked for, and holds in memory."""

    def __init__(self) -> None:
        self._lookups = CounterMetric("skyreels_cache_lookups_total")
        self._memory = Gauge("skyreels_cache_memory_bytes")
        self._nbytes = 0

    def looked_up(self, stage: str, found: str, nbytes: int) -> None:
        """One look-up; `found`: in memory, in the store, on its way (flight), or nothing."""
        self._lookups.inc(tags={"stage": stage, "found": found})
        self._nbytes = nbytes
        self.tell()

    def tell(self) -> None:
        """Says again what is held, or Ray forgets it."""
        self._memory.set(self._nbytes)


class StoreMetrics:
    """What every process counts of its own job store: see `cluster.store.observer`."""

    def __init__(self, models: Iterable[str], stages: Iterable[str] = ()) -> None:
        """`models` are those that are served, `stages` those whose attempts this process ends."""
        models, stages = tuple(models), tuple(stages)
        self._seconds = Histogram("skyreels_store_seconds")
        self._outages = CounterMetric("skyreels_store_outages_total")
        self._jobs = CounterMetric("skyreels_jobs_total")
        self._job_seconds = Histogram("skyreels_job_seconds")
        self._failures = CounterMetric("skyreels_job_failures_total")
        self._tenants = CounterMetric("skyreels_tenant_jobs_total")
        self._retries = CounterMetric("skyreels_retries_total")
        self._useful = CounterMetric("skyreels_useful_seconds_total")
        self._wasted = CounterMetric("skyreels_wasted_seconds_total")
        self._outages.begin(operation=get_args(Kind))
        self._jobs.begin(state=TERMINAL_STATES, model=models)
        self._failures.begin(code=USUAL)
        self._retries.begin(stage=stages, reason=REPEATED)
        self._useful.begin(stage=stages)
        self._wasted.begin(stage=stages, reason=(*REPEATED, "cancelled", "expired"))

    def asked(self, kind: Kind, seconds: float, *, answered: bool) -> None:
        """See `Observer`."""
        tags = {"operation": kind}
        self._seconds.observe(seconds, tags=tags)
        if not answered:
            self._outages.inc(tags=tags)

    def committed(self, moments: Sequence[Moment]) -> None:
        """See `Observer`."""
        for moment in moments:
            match moment:
                case Retry(stage, reason):
                    self._retries.inc(tags={"stage": stage, "reason": reason})
                case Attempt():
                    reason = moment.reason or moment.outcome.value
                    self._useful.inc(moment.useful_s, tags={"stage": moment.stage})
                    self._wasted.inc(moment.wasted_s, tags={"stage": moment.stage, "reason": reason})
                case Ended():
                    self._end(moment)

    def _end(self, job: Ended) -> None:
        state = job.state.value
        self._jobs.inc(tags={"state": state, "model": job.model})
        self._tenants.inc(tags={"tenant": job.tenant_id, "state": state})
        if job.state is JobState.DONE:
            self._job_seconds.observe((job.finished_at - job.created_at).total_seconds(), tags={"model": job.model})
        elif job.state is JobState.FAILED:
            self._failures.inc(tags={"code": job.code or "generation_failed"})


class StageMetrics:
    """What a stage replica counts."""

    def __init__(self, stages: Iterable[str]) -> None:
        self.stage_seconds = Histogram("skyreels_stage_seconds")
        self.stage_failures = CounterMetric("skyreels_stage_failures_total")
        self.stage_failures.begin(stage=stages, code=USUAL)
        self.load_seconds = Histogram("skyreels_model_load_seconds")
        self.handoff = HandoffMetrics()
        self.cache = CacheMetrics()
        self.boundary = BoundaryMetrics()


class GroupMetrics:
    """What a group's controller counts. The busy share is the rate of `busy_seconds`."""

    def __init__(self, pool: str, degree: int) -> None:
        """`degree`: how many ranks share a step."""
        self._pool = pool
        self._degree = str(degree)
        self._load_seconds = Histogram("skyreels_model_load_seconds")
        self._step_seconds = Histogram("skyreels_step_seconds")
        self._busy_seconds = CounterMetric("skyreels_group_busy_seconds_total")
        self._rebuilds = CounterMetric("skyreels_group_rebuilds_total")
        self._events = CounterMetric("skyreels_watchdog_events_total")
        self._residents = Gauge("skyreels_group_residents")
        self._places = Gauge("skyreels_group_places")
        self._unsaved = Gauge("skyreels_snapshot_age_seconds")
        self._busy_seconds.begin()
        self._rebuilds.begin(reason=BREAKS)
        self._events.begin(event=(f"rank_{kind}" for kind in BREAKS))

    def holds(self, residents: int, places: int, unsaved_s: float) -> None:
        """Jobs that the ranks hold, of how many they can, and the most work that a break would cost one of them."""
        self._residents.set(residents)
        self._places.set(places)
        self._unsaved.set(unsaved_s)

    def worked(self, seconds: float) -> None:
        """A step of any stage."""
        self._busy_seconds.inc(seconds)

    def stepped(self, model: str, resolution: str, seconds: float) -> None:
        """A denoising step."""
        self._step_seconds.observe(seconds, {"model": model, "resolution": resolution, "degree": self._degree})

    def broke(self, kind: str) -> None:
        """All ranks are ended and made anew; `kind` as in `GroupBroken`."""
        self._rebuilds.inc(tags={"reason": kind})
        self._events.inc(tags={"event": f"rank_{kind}"})

    def exchanged(self, seconds: float) -> None:
        """Other weights were loaded in place of those there."""
        self._load_seconds.observe(seconds, tags={"pool": self._pool, "cause": "exchange"})


class CourierMetrics:
    """What a Courier counts. An outcome is the state that the delivery is in after the attempt."""

    def __init__(self) -> None:
        self.attempts = CounterMetric("skyreels_deliveries_total")
        self.attempts.begin(kind=ParcelKind, outcome=(ParcelState.PENDING, ParcelState.DELIVERED, ParcelState.DEAD))
        self.seconds = Histogram("skyreels_delivery_seconds")


class SchedulerMetrics:
    """What the leading Scheduler counts."""

    def __init__(self, stages: Iterable[str]) -> None:
        stages = tuple(stages)
        self.queue_seconds = Histogram("skyreels_queue_seconds")
        self.dispatched = CounterMetric("skyreels_dispatched_total")
        self.lost = CounterMetric("skyreels_lost_total")
        self.events = CounterMetric("skyreels_watchdog_events_total")
        self.hint_nbytes = Gauge("skyreels_hint_bytes")
        self.cache_nbytes = Gauge("skyreels_cache_store_bytes")
        self.cache_evictions = CounterMetric("skyreels_cache_evictions_total")
        self.leading = Gauge("skyreels_scheduler_leading")
        self.cache_evictions.begin()
        self.dispatched.begin(stage=stages)
        self.lost.begin(stage=stages)
        self.events.begin(event=("lease_expired", "call_lost", "misplaced"))
        self.boundary = BoundaryMetrics()
        self.cluster = ClusterMetrics()
