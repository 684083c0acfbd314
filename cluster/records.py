"""The nouns of the job plane. Records hold no tensor, are immutable and serialise to small JSON.

Field suffixes are units: `_s` seconds, `_at` a UTC datetime, `nbytes` bytes.
`encode(record)` / `decode(type, data)` are the one way to and from JSON.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter

from cluster.errors import Conflict
from cluster.trace import Trace

R = TypeVar("R")


class JobState(enum.StrEnum):
    """Where a job is. QUEUED until a worker first claims one of its stages, and never QUEUED again."""

    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHING = "publishing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
_ENDINGS = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
_LEGAL: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING}) | _ENDINGS,
    JobState.RUNNING: frozenset({JobState.PUBLISHING}) | _ENDINGS,
    JobState.PUBLISHING: frozenset({JobState.DONE}) | _ENDINGS,
}


def transition(current: JobState, to: JobState) -> JobState:
    """The only way a job changes state.

    Raises:
        Conflict: the move is not in the table (a terminal state is never left).
    """
    if to not in _LEGAL.get(current, frozenset()):
        raise Conflict(f"A job that is {current.value} cannot become {to.value}.")
    return to


class StageState(enum.StrEnum):
    """Where one stage of a job is. BLOCKED until all its inputs exist."""

    BLOCKED = "blocked"
    READY = "ready"
    DISPATCHED = "dispatched"
    CLAIMED = "claimed"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Media:
    """An input file that has passed the door: stored, probed, bounded."""

    uri: str
    media_type: str
    nbytes: int
    sha256: str
    width: int | None = None  # pixels, upright
    height: int | None = None
    duration_s: float | None = None  # of a video or sound
    fps: float | None = None  # of a video, the average
    has_audio: bool = False


class Dialect(enum.StrEnum):
    """In which API's words a job was asked for, and is told of."""

    OPENAI = "openai"
    WAVESPEED = "wavespeed"
    RUNWARE = "runware"


class Container(enum.StrEnum):
    """File format of a result."""

    MP4 = "mp4"
    WEBM = "webm"
    MOV = "mov"

    @property
    def media_type(self) -> str:
        return "video/quicktime" if self is Container.MOV else f"video/{self.value}"


@dataclass(frozen=True, slots=True)
class Output:
    """How a result is encoded. `quality` is 20 (small) to 99 (best), None = the encoder's default."""

    container: Container = Container.MP4
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What happens with the result beside being kept. `ttl_s` counts from the job's end."""

    dialect: Dialect = Dialect.OPENAI
    webhook_url: str | None = None
    upload_url: str | None = None
    ttl_s: float | None = None
    include_cost: bool = False
    task_id: str | None = None  # the caller's own name of the job (Runware's taskUUID), unique for its tenant
    task_sha256: str | None = None  # of what was asked under that name: the same again is the same job


@dataclass(frozen=True, slots=True)
class Forcing:
    """How the frames of a diffusion forcing video take turns. Sizes are latent frames, lags iterations."""

    ar_step: int = 0  # blocks start so many iterations after each other; 0 = all frames together
    causal_block_size: int = 1  # above 1, frames see only their block and those before
    addnoise_condition: int = 0  # timestep of the noise with which the model sees known frames


@dataclass(frozen=True, slots=True)
class Request:
    """The canonical request, whatever dialect it came in. Complete: defaults are already resolved.

    `seed` is never −1 here: a random seed is drawn at the door and reported. `height`/`width` are the
    output size in pixels, `frames` its length; both follow from the plan (`cluster.plans`, `cluster.chains`).
    `duration_s` is what was asked for, in whole seconds; where a sound sets the length, its own, rounded up.
    """

    model: str  # canonical name, never an alias
    prompt: str
    images: tuple[Media, ...]
    aspect_ratio: str | None  # "16:9" …; None = by the first reference
    resolution: str  # family, "720P"
    duration_s: int
    fps: int
    height: int
    width: int
    frames: int
    steps: int
    seed: int
    negative_prompt: str = ""
    guidance: float = 1.0
    guidance_image: float = 1.0
    n: int = 1
    priority: int = 0  # larger runs earlier
    deadline_s: float | None = None
    output: Output = field(default_factory=Output)
    delivery: Delivery = field(default_factory=Delivery)
    trace: Trace | None = None
    video: Media | None = None  # that is continued
    audio: tuple[Media, ...] = ()  # one voice per speaker
    masks: tuple[Media, ...] = ()  # where each speaker is in the portrait
    include_source: bool = False  # the continued video comes first, the new part behind it
    remixed_from: str | None = None  # the job whose result is the video
    prompt_extend: bool = False  # a language model rewrites the prompt before it is encoded
    forcing: Forcing = field(default_factory=Forcing)

    def seed_of(self, result: int) -> int:
        """The seed of one of the `n` results: `seed` and what follows it, around 2^32."""
        return (self.seed + result) % 2**32


@dataclass(frozen=True, slots=True)
class Extension:
    """What became of a prompt that was to be extended. `kept` says why it is the caller's own after all."""

    prompt: str  # that is encoded
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor of a stored value. `dtype` is torch's name without the module: "float32"."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Handle:
    """A reference to a value written by a stage: what it is and where its durable copy lies."""

    key: str
    kind: str  # name of the value type in `components.values`, "Artifact" for files
    uri: str
    nbytes: int
    tensors: tuple[TensorSpec, ...] = ()
    sha256: str | None = None  # of the file


@dataclass(frozen=True, slots=True)
class Rendition:
    """A stored file made of a result's frames, and its size in pixels."""

    uri: str
    media_type: str
    nbytes: int
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished file that a client may fetch, and the pictures made of it."""

    uri: str
    media_type: str
    nbytes: int
    sha256: str
    duration_s: float
    frames: int
    width: int
    height: int
    thumbnail: Rendition | None = None
    spritesheet: Rendition | None = None

    @property
    def uris(self) -> frozenset[str]:
        """Every file that belongs to it."""
        return frozenset({self.uri, *(picture.uri for picture in (self.thumbnail, self.spritesheet) if picture)})


@dataclass(frozen=True, slots=True)
class Result:
    """One of a job's results. `artifact` is None until it is published."""

    index: int
    seed: int
    artifact: Artifact | None = None


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One stored segment of a chunk: a closed GOP that plays behind its init segment (the codec's parameters)."""

    index: int  # within its chunk, from 0
    uri: str
    init_uri: str
    nbytes: int
    first_frame: int  # of the whole video
    frames: int
    duration_s: float


@dataclass(frozen=True, slots=True, order=True)
class StageRef:
    """Names one stage of one job. Stages that all results share have result 0."""

    job_id: str
    stage: str
    chunk: int = 0
    result: int = 0

    def __str__(self) -> str:
        return f"{self.job_id}/{self.stage}/{self.part}"

    @property
    def key(self) -> tuple[str, int, int]:
        """The same within the job: (stage, result, chunk), the key of its graph's node."""
        return self.stage, self.result, self.chunk

    @property
    def named(self) -> dict[str, str | int]:
        """As fields of a log line."""
        return {"job": self.job_id, "stage": self.stage, "result": self.result, "chunk": self.chunk}

    @property
    def prefix(self) -> str:
        """What tells the names of a result's files from those of the others; nothing for the first."""
        return f"r{self.result}-" if self.result else ""

    @property
    def part(self) -> str:
        """Result and chunk in one word."""
        return f"{self.prefix}{self.chunk}"


@dataclass(frozen=True, slots=True)
class StageCall:
    """The unit of scheduling and retry, as it travels to a worker. Idempotent: the epoch fences it."""

    ref: StageRef
    epoch: int
    trace: Trace | None = None  # of its job

    @property
    def span(self) -> str:
        """What its span is of; see `Trace.span_id`."""
        return f"{self.ref}@{self.epoch}"

    @property
    def named(self) -> dict[str, str | int]:
        """As fields of a log line."""
        return self.ref.named | ({} if self.trace is None else {"trace_id": self.trace.id})


@dataclass(frozen=True, slots=True)
class StageWork:
    """What a worker gets when it wins the claim: everything needed to run the stage."""

    call: StageCall
    attempt: int  # 1 for the first
    tenant_id: str
    request: Request
    inputs: Mapping[str, Handle]  # by port
    snapshot: Handle | None  # where a previous attempt had got to
    created_at: datetime  # of the job
    deadline_at: datetime | None
    final: bool = False  # whether the stage makes its result's file


@dataclass(frozen=True, slots=True)
class Beat:
    """One claimed stage's part of a heartbeat. `step` counts finished steps, `busy_s` this attempt's compute time so
    far: not the time in which its devices worked for another job or waited.
    """

    call: StageCall
    step: int = 0
    steps: int = 0
    busy_s: float = 0.0


class Verdict(enum.StrEnum):
    """What a worker must do with a claimed stage after a heartbeat."""

    ALIVE = "alive"
    CANCELLED = "cancelled"  # the job was cancelled or expired: stop, free, write nothing
    STALE = "stale"  # somebody else owns the stage: stop, write nothing


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a stage or job failed, as kept in the store and shown to the client."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage row as read for status pages and progress."""

    stage: str
    result: int
    chunk: int
    state: StageState
    attempt: int
    step: int
    steps: int
    ready_at: datetime | None
    dispatched_at: datetime | None
    claimed_at: datetime | None
    done_at: datetime | None
    worker: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as read from the store."""

    id: str
    tenant_id: str
    request: Request
    graph: str
    state: JobState
    phase: str  # "queued", the running stage's name, "waiting", "publishing" or the final state
    progress: float  # 0.0 … 1.0, from finished stages and steps
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    attempts: int  # stage attempts over the first of each stage
    failure: Failure | None
    results: tuple[Result, ...]  # all `request.n`, in order
    stages: tuple[StageStatus, ...]
    cost_usd: Decimal = Decimal(0)  # of the results published so far
    extension: Extension | None = None  # of the prompt, once it is made


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a job's log; `seq` counts from 1 without gaps."""

    job_id: str
    seq: int
    type: str
    data: Mapping[str, str | int | float | None]
    at: datetime


@dataclass(frozen=True, slots=True)
class Worker:
    """A live replica as it registered itself: which stages it hosts, how many it runs at once, and what is loaded."""

    id: str
    pool: str
    slots: Mapping[str, int]  # by stage
    node: str
    pid: int
    started_at: datetime
    seen_at: datetime
    loaded: tuple[str, ...] = ()  # models that its group of ranks holds on their devices


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode(record: object) -> dict[str, Any]:
    """A record as plain JSON types (datetimes become ISO strings)."""
    dumped: dict[str, Any] = _adapter(cast(Any, type(record))).dump_python(record, mode="json")
    return dumped


def decode(kind: type[R], data: Mapping[str, Any]) -> R:
    """The inverse of `encode`.

    Raises:
        pydantic.ValidationError: the data was not written by `encode` of the same type.
    """
    value: R = _adapter(cast(Any, kind)).validate_python(data)
    return value
