"""Stored files over HTTP: the same answers from a local disk and from an object store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.types import Message, Send

from cluster.errors import Damaged
from deployments.api import errors
from deployments.api.files import PIECE_NBYTES, file_response
from deployments.artifacts import ArtifactStore, Stored
from tests.s3 import S3

DATA = bytes(range(256)) * 5000  # more than one piece
KEY = "jobs/a/outputs/x.mp4"


@pytest.fixture(params=["local", "object store", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "s3":  # through the Api
        found: ArtifactStore = request.getfixturevalue("on_s3")
        return found
    return ArtifactStore(str(tmp_path / "root") if request.param == "local" else "mock:///bucket")


@pytest.fixture
async def client(store: ArtifactStore) -> httpx.AsyncClient:
    return _client(store, (await store.put_bytes(KEY, DATA)).uri)


def _client(store: ArtifactStore, uri: str) -> httpx.AsyncClient:
    app = FastAPI()
    errors.install(app)

    @app.api_route("/{name}", methods=["GET", "HEAD"])
    async def file(name: str, request: Request) -> Response:
        wanted = uri if name == "x" else store.uri("jobs/a/outputs/gone")
        return await file_response(request, store, wanted, "video/mp4", etag="e1", filename="x.mp4")

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge")


async def test_whole_file(client: httpx.AsyncClient) -> None:
    answer = await client.get("/x")
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == '"e1"'
    assert answer.headers["content-disposition"] == 'attachment; filename="x.mp4"'


async def test_head_tells_the_size_and_sends_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.head("/x")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(DATA))
    part = await client.head("/x", headers={"range": "bytes=5-9"})
    assert (part.status_code, part.headers["content-length"], part.content) == (206, "5", b"")


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1279999-", 1279999, 1280000),
        ("bytes=1200000-9999999", 1200000, 1280000),
        ("bytes=-7", 1279993, 1280000),
        ("bytes=-9999999", 0, 1280000),
    ],
)
async def test_a_range(client: httpx.AsyncClient, wanted: str, start: int, end: int) -> None:
    answer = await client.get("/x", headers={"range": wanted})
    assert (answer.status_code, answer.content) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("wanted", ["bytes=1280000-", "bytes=9999999-", "bytes=1280000-1280001"])
async def test_a_range_behind_the_end(client: httpx.AsyncClient, wanted: str) -> None:
    answer = await client.get("/x", headers={"range": wanted})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize(
    "wanted",
    ["bytes=5-1", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "items=0-1", "bytes=\u0663-", "bytes=" + "9" * 5000 + "-"],
)
async def test_what_is_no_range_is_the_whole_file(client: httpx.AsyncClient, wanted: str) -> None:
    answer = await client.get("/x", headers={"range": wanted.encode()})
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))


async def test_a_range_of_another_version_is_the_whole_file(client: httpx.AsyncClient) -> None:
    answer = await client.get("/x", headers={"range": "bytes=0-3", "if-range": '"e0"'})
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))
    answer = await client.get("/x", headers={"range": "bytes=0-3", "if-range": '"e1"'})
    assert (answer.status_code, answer.content) == (206, DATA[:4])


@pytest.mark.parametrize(("known", "status"), [('"e1"', 304), ('"e0", W/"e1"', 304), ("*", 304), ('"e0"', 200)])
async def test_known_bytes_are_not_sent_again(client: httpx.AsyncClient, known: str, status: int) -> None:
    answer = await client.get("/x", headers={"if-none-match": known})
    assert answer.status_code == status
    assert answer.headers["etag"] == '"e1"'
    assert bool(answer.content) == (status == 200)


async def test_a_file_that_is_gone(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"if-none-match": "*"}, {"range": "bytes=0-1"}):
        answer = await client.get("/gone", headers=headers)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


async def test_a_damaged_file_never_arrives_whole(store: ArtifactStore) -> None:
    stored = await store.put_bytes(KEY, DATA)
    await store.put_bytes(KEY, DATA[:-1] + b"?")
    sent = bytearray()

    async def send(message: Message) -> None:
        sent.extend(message.get("body", b""))

    with pytest.raises(Damaged):
        await _answer(store, stored, send)
    assert 0 < len(sent) < len(DATA)


async def test_a_client_that_does_not_read_holds_one_piece(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's `send` returns when the client has taken what was sent."""
    stored = await store.put_bytes(KEY, bytes(8 * PIECE_NBYTES))
    reads: list[int] = []
    to_thread = asyncio.to_thread

    async def counted(function: Callable[..., Any], *args: Any) -> Any:
        reads.extend(args[-1:] if args[-1:] == (PIECE_NBYTES,) else ())
        return await to_thread(function, *args)

    monkeypatch.setattr("deployments.api.files.asyncio.to_thread", counted)
    stuck = asyncio.Event()

    async def send(message: Message) -> None:
        if len(reads) == 3:
            stuck.set()
            await asyncio.Event().wait()

    answering = asyncio.create_task(_answer(store, stored, send))
    await stuck.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(reads) == 3
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering


async def test_s3_hands_out_the_file_itself(s3: S3, s3_store: tuple[str, ArtifactStore]) -> None:
    store = ArtifactStore(f"s3://{s3_store[0]}/some/prefix", s3.options())
    async with _client(store, (await store.put_bytes(KEY, DATA)).uri) as client:
        answer = await client.get("/x")
        assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (307, b"", "no-store")
        async with httpx.AsyncClient(trust_env=False) as outside:
            file = await outside.get(answer.headers["location"])
        assert (file.status_code, file.content, file.headers["content-type"]) == (200, DATA, "video/mp4")
        assert file.headers["content-disposition"] == 'attachment; filename="x.mp4"'
        head = await client.head("/x")
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(DATA)))
        assert (await client.get("/x", headers={"if-none-match": '"e1"'})).status_code == 304
        assert (await client.get("/gone")).status_code == 404


async def _answer(store: ArtifactStore, stored: Stored, send: Send) -> None:
    """The file's response, as a server would run it."""

    async def receive() -> Message:
        silence: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await silence

    scope = {"type": "http", "method": "GET", "headers": [], "path": "/", "asgi": {"spec_version": "2.4"}}
    request = Request(scope, receive)
    answer = await file_response(request, store, stored.uri, "video/mp4", etag="e", sha256=stored.sha256)
    await answer(scope, receive, send)
