"""What every API of a video server comes down to: create, look, cancel, fetch.

A dialect says nothing about time: the instants are taken by whoever calls it, on the clock of the event loop.
"""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import httpx

from cluster.plans import aspect_bucket
from cluster.registry import KNOWN
from loadtest.inputs import COLOURS, clip, png, voice
from loadtest.mixes import Entry
from loadtest.records import Planned, Span

ASPECT = "16:9"
FPS = 24  # of videos from servers that are told a number of frames
STRIDE_T = 4  # frames of one latent, beside the first
AWAY = frozenset({502, 503, 504})  # of a look: says nothing about the job
BUSY = frozenset({429, 503})  # of a create: come back later


class State(enum.StrEnum):
    """Where a job is, in words common to all servers."""

    WAITING = "waiting"
    WORKING = "working"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        return self in {State.COMPLETED, State.FAILED}


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a create. `job_id` None: refused, or no answer came (`status` None)."""

    job_id: str | None
    status: int | None
    retry_after_s: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What a server says about a job."""

    state: State
    error: str | None = None
    queue_s: float | None = None  # until it was first worked on
    server_s: float | None = None  # from creation to end
    stage_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Sight:
    """Everything seen of a job so far; instants are those of the event loop's clock."""

    state: State = State.WAITING
    error: str | None = None
    began_at: float | None = None
    preview_at: float | None = None
    ended_at: float | None = None
    queue_s: float | None = None
    server_s: float | None = None
    stage_s: dict[str, float] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()

    def see(self, look: Look, now: float) -> None:
        """Adds a look. What is over stays as it was when that was first seen."""
        if self.began_at is None and look.state is not State.WAITING:
            self.began_at = now
        if look.state.over and self.ended_at is None:
            self.ended_at = now
        self.state, self.error = look.state, look.error
        self.queue_s = look.queue_s if self.queue_s is None else self.queue_s
        self.server_s = look.server_s if self.server_s is None else self.server_s
        self.stage_s = self.stage_s or dict(look.stage_s)


@dataclass(frozen=True, slots=True)
class Device:
    """Device-seconds that a server says it has spent since some hour."""

    useful_s: float
    wasted_s: float


class Dialect(ABC):
    """One server in one API. `keys` are API keys by tenant; a tenant without one asks without."""

    name: ClassVar[str]

    def __init__(self, http: httpx.AsyncClient, keys: Mapping[str, str] | None = None, poll_s: float = 0.25) -> None:
        self.http = http
        self._keys = dict(keys or {})
        self._poll_s = poll_s

    # -- what each API says in its own words -------------------------------------------------------------------
    def unable(self, entry: Entry) -> str | None:
        """Why a kind of request cannot be said in this API, or None."""
        return None

    @abstractmethod
    async def create(self, request: Planned) -> Receipt:
        """Asks for a video. Raises nothing: no answer is a Receipt too."""

    @abstractmethod
    async def look(self, job_id: str, tenant: str) -> Look:
        """How a job is. httpx.HTTPError when the server says nothing of use."""

    @abstractmethod
    async def cancel(self, job_id: str, tenant: str) -> None:
        """Stops a job as well as the API can. httpx.HTTPError."""

    @abstractmethod
    async def fetch(self, job_id: str, tenant: str, results: int) -> int:
        """Downloads every result; bytes. httpx.HTTPError."""

    async def device(self, tenants: tuple[str, ...], since: str) -> Device | None:
        """What these tenants have used since an hour, where the server tells it. httpx.HTTPError."""
        return None

    # -- common to all -----------------------------------------------------------------------------------------
    async def follow(self, job_id: str, tenant: str, sight: Sight) -> None:
        """Looks again and again until the job is over; patient with a server that is away."""
        loop = asyncio.get_running_loop()
        while not sight.state.over:
            await asyncio.sleep(self._poll_s)
            try:
                look = await self.look(job_id, tenant)
            except httpx.HTTPError:
                continue
            sight.see(look, loop.time())

    async def ask(self, method: str, path: str, tenant: str, **content: Any) -> httpx.Response:
        """One request in a tenant's name. httpx.TransportError."""
        return await self.http.request(method, path, headers=self.headers(tenant), **content)

    def headers(self, tenant: str) -> dict[str, str]:
        key = self._keys.get(tenant)
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def submit(self, path: str, request: Planned, **content: Any) -> tuple[Receipt, Any]:
        """A create by POST: its receipt without an id, and the JSON of a success."""
        try:
            response = await self.ask("POST", path, request.tenant, **content)
            if response.is_error:
                told_s = retry_after_s(response)
                return Receipt(None, response.status_code, told_s, response.text[:300]), None
            return Receipt(None, response.status_code), response.json()
        except (httpx.HTTPError, ValueError) as error:
            return Receipt(None, None, error=repr(error)[:300]), None

    async def get(self, path: str, tenant: str, **content: Any) -> Any:
        """The JSON of a GET. httpx.HTTPError."""
        response = await self.ask("GET", path, tenant, **content)
        return response.raise_for_status().json()

    async def download(self, path: str, tenant: str) -> int:
        """Bytes of a file. httpx.HTTPError."""
        total = 0
        async with self.http.stream("GET", path, headers=self.headers(tenant)) as response:
            response.raise_for_status()
            async for part in response.aiter_bytes():
                total += len(part)
        return total


def retry_after_s(response: httpx.Response) -> float | None:
    """What `Retry-After` says, in seconds; a date counts from the answer's own (RFC 9110). None if it says nothing."""
    text = response.headers.get("retry-after")
    if text is None:
        return None
    if text.isdecimal():
        return float(text)
    try:
        return (parsedate_to_datetime(text) - parsedate_to_datetime(response.headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Media:
    """The files of a request."""

    images: tuple[bytes, ...]
    voice: bytes | None
    video: bytes | None


def media(request: Planned) -> Media:
    """What a model's request needs beside its text."""
    limits = KNOWN[request.model].limits
    count = min(max(request.images, limits.min_images), limits.max_images)
    return Media(
        images=tuple(png(*COLOURS[index % len(COLOURS)]) for index in range(count)),
        voice=voice(request.seconds) if limits.timed_by_audio else None,
        video=clip() if limits.min_videos else None,
    )


def pixels(resolution: str) -> tuple[int, int]:
    """Width and height of a 16:9 video of a family, for servers that are told pixels."""
    height, width = aspect_bucket(resolution, ASPECT)
    return width, height


def frames(seconds: float, fps: int = FPS) -> int:
    """Frames of a video, for servers that are told their number: one, and whole latents of four."""
    return int(seconds * fps) // STRIDE_T * STRIDE_T + 1
