"""The nouns of a load test. All times are seconds from the start of the measurement unless said otherwise."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Planned:
    """One request as it is meant to be sent."""

    index: int
    at_s: float  # when it is due; in a closed loop how long its caller thinks before
    tenant: str
    slo: str
    limit_s: float  # longest end to end that is in time
    model: str
    resolution: str
    seconds: float  # of video
    results: int
    images: int
    steps: int | None
    seed: int
    priority: int
    prompt: str
    cancel_after_s: float | None  # since `at_s`


class Outcome(enum.StrEnum):
    """How a request ended, each counted apart."""

    COMPLETED = "completed"
    REJECTED = "rejected"  # 429 or 503 in answer to the request: the server said so at once
    FAILED = "failed"  # any other error, before or after it was accepted
    CANCELLED = "cancelled"  # by its caller, as planned
    UNFINISHED = "unfinished"  # still open when the measurement ended


@dataclass(frozen=True, slots=True)
class Span:
    """One attempt of one stage, in seconds since the job was created, by the server's clock."""

    stage: str
    result: int
    chunk: int
    attempt: int
    ready_s: float
    began_s: float
    ended_s: float
    counted: bool  # false: its work was thrown away


@dataclass(frozen=True, slots=True)
class JobRow:
    """What became of a planned request: a row of the results."""

    rate_hz: float
    run_seed: int
    index: int
    tenant: str
    slo: str
    limit_s: float
    model: str
    resolution: str
    seconds: float
    results: int
    intended_s: float  # when it was due: latencies count from here
    sent_s: float  # when its first byte could leave
    outcome: Outcome
    accepted_s: float | None = None
    began_s: float | None = None  # first seen in progress
    preview_s: float | None = None  # something could be watched
    ended_s: float | None = None
    refusals: int = 0  # answers 429 or 503
    retry_after: bool | None = None  # whether every refusal said when to come back
    status: int | None = None  # last HTTP status of the create
    job_id: str | None = None
    error: str | None = None
    nbytes: int | None = None  # downloaded
    queue_s: float | None = None  # the server's own word: until the job was first worked on
    server_s: float | None = None  # the server's own word: from creation to end
    stage_s: dict[str, float] = field(default_factory=dict)  # worked in each stage
    spans: tuple[Span, ...] = ()

    @property
    def latency_s(self) -> float | None:
        """From the intended instant to the end."""
        return None if self.ended_s is None else self.ended_s - self.intended_s

    @property
    def met(self) -> bool:
        """Completed in time."""
        latency_s = self.latency_s
        return self.outcome is Outcome.COMPLETED and latency_s is not None and latency_s <= self.limit_s


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one series of a scrape."""

    at_s: float
    source: str
    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was done to the system in a measurement. `whole_after_s` None = not seen."""

    at_s: float
    what: str
    whole_after_s: float | None = None
