"""What no body may hold, whoever speaks which dialect and whichever database is behind."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.errors import InvalidRequest
from deployments.api.bodies import check_texts
from tests.postgres import Databases
from tests.unit.deployments.api.conftest import Edge, open_edge
from tests.unit.deployments.api.test_runware import FILE, get, group
from tests.unit.deployments.api.test_runware import r2v as task
from tests.unit.deployments.api.test_videos import body, png
from tests.unit.deployments.api.test_wavespeed import R2V, V1, r2v, v1

RUNWARE = "/runware/v1"
HOOK = "https://hooks.example/\0"
# Path, JSON, and the parameter that the refusal names.
BODIES: list[tuple[str, Any, str]] = [
    ("/v1/videos", body(prompt="a\0b"), "prompt"),
    ("/v1/videos", body(model="skyreels\0"), "model"),
    ("/v1/videos", body(images=["\0"]), "images[0]"),
    ("/v1/videos", body(input_reference={"file_id": "file-\0"}), "input_reference.file_id"),
    ("/v1/videos", body(webhook_url=HOOK), "webhook_url"),
    ("/v1/videos", body(upload_url=HOOK), "upload_url"),
    ("/v1/videos", body() | {"a\0": 1}, "body"),
    ("/v1/videos/none/remix", {"prompt": "\0"}, "prompt"),
    ("/v1/videos/edits", {"prompt": "a", "video": {"id": "video_\0"}}, "video.id"),
    ("/v1/videos/extensions", {"prompt": "a", "seconds": "4", "video": {"id": "\0"}}, "video.id"),
    (R2V, r2v(prompt="a\0"), "prompt"),
    (R2V, r2v(images=["file-\0"]), "images[0]"),
    (V1, v1(negative_prompt="\0"), "negative_prompt"),
    (RUNWARE, [task(positivePrompt="@ball \0")], "positivePrompt"),
    (RUNWARE, [task(taskUUID=f"{FILE}\0")], "taskUUID"),
    (RUNWARE, [task(webhookURL=HOOK)], "webhookURL"),
    (RUNWARE, [task(uploadEndpoint=HOOK)], "uploadEndpoint"),
    (RUNWARE, [task(inputs={"referenceImages": [group("@\0")]})], "inputs.referenceImages[0].tag"),
    (RUNWARE, [get([FILE, "\0"])], "taskUUID[1]"),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """The store's part of the configuration."""
    if request.param == "sqlite":
        yield ""
        return
    postgres: Databases = request.getfixturevalue("postgres")
    url = postgres.new()
    yield f"store: {{url: '{url}'}}\n"
    postgres.drop(url)


@pytest.fixture
async def held(store: str, tmp_path: Path) -> AsyncIterator[Edge]:
    """The edge over either database."""
    async with open_edge(tmp_path, more=store) as edge:
        yield edge


def told(answer: httpx.Response) -> tuple[str | None, str]:
    """The parameter and the message of a refusal, in whatever envelope."""
    content = answer.json()
    if "errors" in content:
        (entry,) = content["errors"]
        return entry.get("parameter"), entry["message"]
    error = content.get("error", {})
    return error.get("param"), error.get("message") or content["message"]


async def test_a_nul_character_is_one_clear_400(held: Edge) -> None:
    for path, content, param in BODIES:
        answer = await held.client.post(path, json=content)
        assert answer.status_code == 400, (path, content, answer.text)
        named, message = told(answer)
        assert message == f"{param} must not contain a NUL character.", (path, content)
        assert named == (None if param == "body" or path.startswith("/api/v3") else param), (path, content)
    forms = (
        ("/v1/videos", {"data": {"prompt": "a\0"}, "files": {"images": ("a.png", png())}}),
        ("/v1/videos/edits", {"data": {"prompt": "a", "video[id]": "\0"}, "files": {"x": (None, "")}}),
        ("/v1/files", {"data": {"purpose": "\0"}, "files": {"file": ("a.png", png())}}),
        ("/v1/files", {"content": upload("a\0.png"), "headers": {"content-type": "multipart/form-data; boundary=b"}}),
        (f"{R2V}?webhook=%00", {"json": r2v()}),
        ("/v1/videos/%00/remix", {"json": {"prompt": "a"}}),
    )
    for path, sent in forms:
        answer = await held.client.post(path, **sent)
        assert answer.status_code == 400, (path, sent, answer.text)
        assert answer.headers["x-request-id"]
    assert (await held.client.get("/v1/videos")).json()["data"] == []
    assert (await held.client.get("/v1/files")).json()["data"] == []
    assert held.files() == []


async def test_only_the_task_with_a_nul_character_is_refused(edge: Edge) -> None:
    good, bad = task(), task(positivePrompt="@ball \0")
    answer = await edge.client.post(RUNWARE, json=[bad, good])
    assert answer.status_code == 200
    assert [entry["taskUUID"] for entry in answer.json()["data"]] == [good["taskUUID"]]
    assert [entry["taskUUID"] for entry in answer.json()["errors"]] == [bad["taskUUID"]]


def test_however_deep_it_lies() -> None:
    deep: list[Any] = ["\0"]
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="NUL"):
        check_texts(deep)
    check_texts({"a": [str(uuid.uuid4()), 1, None, True, {"b": "\ufffd"}]})


def upload(filename: str) -> bytes:
    """A form with one file, its name as it is."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    return head.encode() + png() + b"\r\n--b--\r\n"
