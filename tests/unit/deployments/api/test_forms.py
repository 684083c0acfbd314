"""Forms stand for JSON bodies."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from deployments.api import errors
from deployments.api.forms import read_body


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    errors.install(app)

    @app.post("/")
    async def read(request: Request) -> dict[str, Any]:
        fields, files = await read_body(request, lists=frozenset({"images"}))
        return {"fields": fields, "files": [[name, data.decode()] for name, data in files]}

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge")


def parts(*fields: tuple[str, str]) -> dict[str, Any]:
    return {"files": [(name, (None, value)) for name, value in fields]}


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ([("a", "1"), ("b", "2")], {"a": "1", "b": "2"}),
        ([("video[id]", "v")], {"video": {"id": "v"}}),
        ([("o[a]", "1"), ("o[b]", "2")], {"o": {"a": "1", "b": "2"}}),
        ([("images", "1"), ("images", "2")], {"images": ["1", "2"]}),
        ([("x[]", "1"), ("x[]", "2")], {"x": ["1", "2"]}),
        ([("images[][url]", "1"), ("images[url]", "2")], {"images": [{"url": "1"}, {"url": "2"}]}),
        ([("a[b][c]", "1"), ("[]", "2")], {"a[b][c]": "1", "[]": "2"}),
    ],
)
async def test_fields(client: httpx.AsyncClient, fields: list[tuple[str, str]], read: dict[str, Any]) -> None:
    answer = await client.post("/", **parts(*fields))
    assert answer.json() == {"fields": read, "files": []}


@pytest.mark.parametrize(
    "fields",
    [
        [("a", "1"), ("a", "2")],
        [("o[a]", "1"), ("o[a]", "2")],
        [("o", "1"), ("o[a]", "2")],
        [("o[a]", "1"), ("o", "2")],
        [("x[]", "1"), ("x", "2")],
        [("x", "1"), ("x[]", "2")],
        [("x[]", "1"), ("x[a]", "2")],
        [("o[a]", "1"), ("o[]", "2")],
    ],
)
async def test_what_is_given_twice(client: httpx.AsyncClient, fields: list[tuple[str, str]]) -> None:
    answer = await client.post("/", **parts(*fields))
    assert answer.status_code == 400
    assert "given twice" in answer.json()["error"]["message"]


async def test_files_keep_their_order_and_json_is_itself(client: httpx.AsyncClient) -> None:
    files = [("b[]", ("1", b"one")), ("a", ("2", b"two")), ("b", ("3", b"three"))]
    assert (await client.post("/", files=files)).json()["files"] == [["b", "one"], ["a", "two"], ["b", "three"]]
    assert (await client.post("/", json=[1])).json() == {"fields": [1], "files": []}
    assert (await client.post("/", content=b"a=1")).status_code == 400
