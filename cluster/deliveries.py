"""The outbox's nouns: what the system owes to receivers outside, one parcel per webhook or upload.

`owed` is the rule that turns an event of a job into parcels; the store writes them in the event's transaction.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from cluster.records import Delivery, Dialect, JobState

RESULT = "result"  # types of the events that may make a parcel due
STATE = "state"
MAX_ERROR_CHARS = 200


class ParcelKind(enum.StrEnum):
    """A signed POST that tells of an event, or a PUT of a finished file."""

    WEBHOOK = "webhook"
    UPLOAD = "upload"


class ParcelState(enum.StrEnum):
    """PENDING until somebody sends it, SENDING while a lease runs, then DELIVERED, or DEAD after the last attempt."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Parcel:
    """One row of the outbox. `epoch` grows with every claim and fences what its holder writes."""

    id: str
    job_id: str
    tenant_id: str
    seq: int  # of the event that it tells of
    kind: ParcelKind
    url: str
    host: str  # host:port of the URL
    result: int | None  # index of the job's result; None = the whole job
    state: ParcelState
    epoch: int
    attempts: int  # begun since it was written or last asked for again
    next_at: datetime  # PENDING: when it is due; SENDING: when the lease ends
    last_status: int | None  # HTTP status of the last answer
    last_error: str | None
    created_at: datetime
    settled_at: datetime | None  # DELIVERED or DEAD since


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended. PENDING means again, `delay_s` from now; the error holds no URL and no secret."""

    state: ParcelState
    status: int | None = None
    error: str | None = None
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.error is not None and len(self.error) > MAX_ERROR_CHARS:
            object.__setattr__(self, "error", self.error[:MAX_ERROR_CHARS])


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the outbox holds now: parcels by kind and state, and how long the oldest due one has been waiting."""

    counts: Mapping[tuple[ParcelKind, ParcelState], int]
    oldest_due_s: float


@dataclass(frozen=True, slots=True)
class ParcelPage:
    """A slice of a listing."""

    parcels: Sequence[Parcel]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Owed:
    """What an event makes due. A webhook waits for the upload of the same event, where there is one."""

    kind: ParcelKind
    url: str
    result: int | None


def owed(delivery: Delivery, kind: str, data: Mapping[str, str | int | float | None]) -> Iterable[Owed]:
    """The parcels of one event, an upload before the webhook that waits for it.

    OpenAI and WaveSpeed clients are told once, of the job's end; Runware's of each result as it is published, and of
    an end without one. The one upload URL takes the one result of its job (`cluster.canonical` refuses more).
    """
    each = delivery.dialect is Dialect.RUNWARE
    published = kind == RESULT
    state = JobState(str(data["state"])) if kind == STATE else None
    index = int(data["index"] or 0) if published else None
    if published and delivery.upload_url is not None:
        yield Owed(ParcelKind.UPLOAD, delivery.upload_url, index)
    if delivery.webhook_url is None:
        return
    if each:
        tells = published or (state is not None and state.terminal and state is not JobState.DONE)
    else:
        tells = state is not None and state.terminal
    if tells:
        yield Owed(ParcelKind.WEBHOOK, delivery.webhook_url, index)


def receiver(url: str) -> str:
    """host:port of a URL that has passed the door, in lower case: what sends are counted and limited by. Never raises,
    as it is asked for when a job ends.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "malformed"
    return f"{parts.hostname}:{port}"
