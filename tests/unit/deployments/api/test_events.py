"""The event stream: every event once and in order, from any point, at bounded cost whatever its client does."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from cluster.errors import Unavailable
from cluster.records import Beat, Event
from deployments.api import feed as feeds
from deployments.api.feed import Feed
from tests.unit.cluster.makers import request
from tests.unit.cluster.store.play import LEASE_S, R2V, Play
from tests.unit.deployments.api.conftest import Edge, open_edge

TENANT = "default"


@dataclass
class Browser:
    """An SSE client that reads only when it is told to, over bare ASGI."""

    app: FastAPI
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    text: str = ""
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def open(self, *, reads: bool = True) -> Browser:
        if reads:
            self.reading.set()
        self.task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        path, _, query = self.path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in self.headers.items()],
            "client": ("127.0.0.1", 1), "server": ("edge", 80),
        }  # fmt: skip
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        await self.reading.wait()
        self.text += message.get("body", b"").decode()

    @property
    def events(self) -> list[tuple[int, str, dict[str, Any]]]:
        frames = [
            dict(line.split(": ", 1) for line in frame.split("\n"))
            for frame in self.text.split("\n\n")
            if frame.startswith("id: ")
        ]
        return [(int(frame["id"]), frame["event"], json.loads(frame["data"])) for frame in frames]

    @property
    def ids(self) -> list[int]:
        return [number for number, _, _ in self.events]

    async def end(self) -> Browser:
        assert self.task is not None
        await self.task
        return self

    async def until(self, count: int) -> None:
        while len(self.events) < count:
            await asyncio.sleep(0.01)


@pytest.fixture
async def play(edge: Edge) -> Play:
    leadership = await edge.store.lead("s1", 600.0)
    assert leadership is not None
    return Play(edge.store, leadership)


async def create(play: Play, job_id: str = "j1", tenant: str = TENANT) -> None:
    await play.store.create_job(job_id, tenant, request(), R2V)


async def finish(play: Play, job_id: str = "j1") -> list[Event]:
    await play.until("", job_id)
    return list(await play.store.events(job_id, TENANT))


def browse(edge: Edge, job_id: str = "j1", query: str = "", **headers: str) -> Browser:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Browser(edge.app, f"/v1/videos/{job_id}/events{query}", named)


def streams(edge: Edge) -> int:
    feed: Feed = edge.app.state.feed
    return feed.streams


async def test_a_live_stream_is_the_whole_log_and_ends_with_it(edge: Edge, play: Play) -> None:
    await create(play)
    live = browse(edge).open()
    await live.until(1)
    log = await finish(play)
    await live.end()
    assert (live.status, live.ids) == (200, [event.seq for event in log])
    assert [kind for _, kind, _ in live.events] == [event.type for event in log]
    kind, data = live.events[-1][1:]
    assert (kind, data["state"], data["status"]) == ("state", "done", "completed")
    assert all("at" in data and "worker" not in data for _, _, data in live.events)
    assert [data["index"] for _, kind, data in live.events if kind == "result"] == [0]
    assert live.text.startswith("retry: ")
    assert streams(edge) == 0


async def test_a_reader_goes_on_where_it_was_in_another_process(edge: Edge, play: Play, tmp_path: Path) -> None:
    await create(play)
    first = browse(edge).open()
    await first.until(2)
    first.left.set()
    await first.end()
    assert streams(edge) == 0
    log = await finish(play)
    async with open_edge(tmp_path) as restarted:
        second = await browse(restarted, last_event_id=str(first.ids[-1])).open().end()
        third = await browse(restarted, query="?after=3").open().end()
        over = await browse(restarted, last_event_id=str(log[-1].seq)).open().end()
    assert first.ids + second.ids == [event.seq for event in log]
    assert third.ids == [event.seq for event in log][3:]
    assert (over.status, over.text) == (204, "")


async def test_what_is_not_there(edge: Edge, play: Play) -> None:
    await create(play, "foreign", "other")
    await create(play)
    for path, status in (
        ("/v1/videos/foreign/events", 404),
        ("/v1/videos/never/events", 404),
        ("/v1/videos/j1/events?after=999", 400),
        ("/v1/videos/j1/events?after=-1", 400),
    ):
        assert (await edge.client.get(path)).status_code == status
    wrong = await edge.client.get("/v1/videos/j1/events", headers={"last-event-id": "x"})
    assert wrong.status_code == 400
    assert streams(edge) == 0


async def test_a_deleted_job_ends_its_streams(edge: Edge, play: Play) -> None:
    await create(play)
    live = browse(edge).open()
    await live.until(1)
    await play.store.delete_job("j1", TENANT)
    await live.end()
    assert live.status == 200


async def test_a_slow_client_costs_a_queue_and_delays_nobody(
    edge: Edge, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "QUEUE", 4)
    await create(play)
    slow = browse(edge).open(reads=False)
    quick = browse(edge).open()
    await quick.until(1)
    log = await finish(play)
    await quick.end()
    assert quick.ids == [event.seq for event in log]
    (held,) = edge.app.state.feed._open
    assert len(held._queue) <= 4
    assert held.cursor < len(log)
    slow.reading.set()
    await slow.end()
    assert slow.ids == quick.ids


async def test_who_leaves_without_reading_ends_the_stream(edge: Edge, play: Play) -> None:
    await create(play)
    gone = browse(edge).open(reads=False)
    while streams(edge) == 0:
        await asyncio.sleep(0.01)
    gone.left.set()
    gone.reading.set()
    await gone.end()
    assert streams(edge) == 0


async def test_all_streams_share_one_reading(edge: Edge, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[set[str]] = []
    feed = edge.store.feed

    async def counted(cursors: Any, *, limit: int = 100) -> Any:
        reads.append(set(cursors))
        return await feed(cursors, limit=limit)

    monkeypatch.setattr(edge.store, "feed", counted)
    for job_id in ("a", "b"):
        await create(play, job_id)
    many = [browse(edge, job_id).open() for job_id in ("a", "b") for _ in range(5)]
    await asyncio.gather(*(one.until(1) for one in many))
    reads.clear()
    while len(reads) < 3:
        await asyncio.sleep(0.01)
    assert all(read == {"a", "b"} for read in reads)
    for job_id in ("a", "b"):
        await play.store.cancel_job(job_id, TENANT)
    await asyncio.gather(*(one.end() for one in many))


async def test_streams_are_bounded_and_an_outage_only_pauses_them(
    edge: Edge, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(play)
    feed: Feed = edge.app.state.feed
    real = edge.store.feed
    broken = asyncio.Event()

    async def out(*_: Any, **__: Any) -> Any:
        broken.set()
        raise Unavailable("The job store is gone.", retry_after_s=1)

    monkeypatch.setattr(edge.store, "feed", out)
    live = browse(edge).open()
    await broken.wait()
    monkeypatch.setattr(feed, "_most", 1)
    refused = await edge.client.get("/v1/videos/j1/events")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    monkeypatch.setattr(edge.store, "feed", real)
    log = await finish(play)
    await live.end()
    assert live.ids == [event.seq for event in log]


async def test_progress_is_an_event(edge: Edge, play: Play) -> None:
    await create(play)
    await play.until("denoise")
    call = (await play.take("denoise")).call
    live = browse(edge).open()
    step = 0
    while not any(kind == "progress" for _, kind, _ in live.events):
        step += 1
        await play.store.heartbeat("w1", [Beat(call, min(step, 999), 1000)], LEASE_S)
        await asyncio.sleep(0.02)
    told = next(data for _, kind, data in live.events if kind == "progress")
    assert 0 < told["progress"] < 1
    assert (told["stage"], told["steps"]) == ("denoise", 1000)
    live.left.set()
    await live.end()
