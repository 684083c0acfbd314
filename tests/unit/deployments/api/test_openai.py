"""What OpenAI's API promises beyond making a video: variants, formats, unserved operations, one error shape."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cluster.records import Artifact, Job, Rendition
from cluster.store.base import JobStore
from deployments.api.schemas import ErrorBody
from deployments.artifacts import job_key
from deployments.telemetry import JsonFormatter, logger
from tests.unit.cluster.makers import ARTIFACT
from tests.unit.cluster.store.play import Play, outputs
from tests.unit.deployments.api.conftest import Edge
from tests.unit.deployments.api.test_videos import body, png, uri

JSON = {"content-type": "application/json"}
FORM = "multipart/form-data; boundary=x"


async def finished(edge: Edge, *, pictures: bool = True, **fields: Any) -> str:
    """The id of a completed job whose files hold their own names."""
    job_id: str = (await edge.client.post("/v1/videos", json=body(**fields))).raise_for_status().json()["id"]
    leadership = await edge.store.lead("s1", 600.0)
    assert leadership is not None
    play = Play(edge.store, leadership)
    for stage in ("text", "condition", "denoise"):
        await play.finish(stage, job_id)
    work = await play.take("decode", job_id)
    stored = {
        name: await edge.artifacts.put_bytes(job_key(job_id, "outputs", name), name.encode())
        for name in ("1.mp4", "1.webp", "1.jpg")
    }
    thumbnail, sheet = (
        Rendition(stored[name].uri, kind, stored[name].nbytes, stored[name].sha256, 112, 64)
        for name, kind in (("1.webp", "image/webp"), ("1.jpg", "image/jpeg"))
    )
    file = stored["1.mp4"]
    artifact: Artifact = replace(
        ARTIFACT, uri=file.uri, nbytes=file.nbytes, sha256=file.sha256,
        media_type=work.request.output.container.media_type,
    )  # fmt: skip
    if pictures:
        artifact = replace(artifact, thumbnail=thumbnail, spritesheet=sheet)
    await edge.store.complete(work.call, outputs("decode"), artifact)
    return job_id


@pytest.mark.parametrize(
    ("variant", "kind", "content", "name"),
    [
        ("video", "video/mp4", b"1.mp4", "{}.mp4"),
        ("thumbnail", "image/webp", b"1.webp", "{}-thumbnail.webp"),
        ("spritesheet", "image/jpeg", b"1.jpg", "{}-spritesheet.jpg"),
    ],
)
async def test_variants(edge: Edge, variant: str, kind: str, content: bytes, name: str) -> None:
    job_id = await finished(edge)
    path = f"/v1/videos/{job_id}/content?variant={variant}"
    whole = await edge.client.get(path)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, content, kind)
    assert whole.headers["content-disposition"] == f'attachment; filename="{name.format(job_id)}"'
    head = await edge.client.head(path)
    assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))
    part = await edge.client.get(path, headers={"range": "bytes=1-2"})
    assert (part.status_code, part.content) == (206, content[1:3])
    known = await edge.client.get(path, headers={"if-none-match": whole.headers["etag"]})
    assert known.status_code == 304
    beyond = await edge.client.get(path, headers={"range": "bytes=99-"})
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (416, "invalid_range")
    assert beyond.headers["content-range"] == f"bytes */{len(content)}"


async def test_a_result_from_before_there_were_pictures(edge: Edge) -> None:
    job_id = await finished(edge, pictures=False)
    answer = await edge.client.get(f"/v1/videos/{job_id}/content?variant=thumbnail")
    assert answer.status_code == 404
    assert "has no thumbnail" in answer.json()["error"]["message"]
    assert (await edge.client.get(f"/v1/videos/{job_id}/content?variant=gif")).status_code == 400


@pytest.mark.parametrize(("output", "kind"), [("mov", "video/quicktime"), ("webm", "video/webm")])
async def test_output_formats(edge: Edge, output: str, kind: str) -> None:
    job_id = await finished(edge, output_format=output, output_quality=50)
    job = (await edge.client.get(f"/v1/videos/{job_id}")).json()
    assert (job["output_format"], job["output_quality"]) == (output, 50)
    answer = await edge.client.get(f"/v1/videos/{job_id}/content")
    assert answer.headers["content-type"] == kind
    assert f'filename="{job_id}.{output}"' in answer.headers["content-disposition"]


@pytest.mark.parametrize("fields", [{"output_format": "gif"}, {"output_quality": 19}, {"output_quality": 100}])
async def test_formats_that_do_not_exist(edge: Edge, fields: dict[str, Any]) -> None:
    answer = await edge.client.post("/v1/videos", json=body(**fields))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(fields)))


async def test_server_timing_of_a_finished_job(edge: Edge) -> None:
    job_id = await finished(edge)
    for path in (f"/v1/videos/{job_id}", f"/v1/videos/{job_id}/content"):
        parts = dict(part.split(";dur=") for part in (await edge.client.get(path)).headers["server-timing"].split(", "))
        assert list(parts) == ["queue", "text", "condition", "denoise", "decode", "total"]
        assert float(parts["total"]) >= sum(float(parts[stage]) for stage in list(parts)[:-1]) - 1
    waiting = (await edge.client.post("/v1/videos", json=body())).json()["id"]
    assert "server-timing" not in (await edge.client.get(f"/v1/videos/{waiting}")).headers


async def test_references_in_a_form_as_the_sdk_writes_them(edge: Edge) -> None:
    form = [("prompt", "A ball"), ("input_reference[image_url]", uri(png(30, 30))), ("images[][image_url]", uri(png()))]
    parts = [(name, (None, value)) for name, value in form]
    answer = await edge.client.post("/v1/videos", files=parts)
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "80x80"
    assert len(edge.files()) == 2
    for wrong in ({}, {"image_url": uri(png()), "file_id": "file-1"}):
        refused = await edge.client.post("/v1/videos", json=body(images=[wrong]))
        assert refused.status_code == 400
        assert "image_url" in refused.json()["error"]["message"]


# -- operations that no served model has -----------------------------------------------------------------------------


async def test_well_formed_requests_learn_that_nobody_does_it(edge: Edge) -> None:
    done = await finished(edge)
    file = ("a.mp4", b"video")
    asked: list[tuple[str, dict[str, Any]]] = [
        (f"{done}/remix", {"json": {"prompt": "at night"}}),
        (f"{done}/remix", {"files": {"prompt": (None, "at night")}}),
        ("extensions", {"json": {"prompt": "on", "seconds": "8", "video": {"id": done}}}),
        ("extensions", {"files": [("prompt", (None, "on")), ("seconds", (None, "8")), ("video[id]", (None, done))]}),
        ("extensions", {"data": {"prompt": "on", "seconds": "8"}, "files": {"video": file}}),
        ("edits", {"json": {"prompt": "on", "video": {"id": done}}}),
        ("edits", {"data": {"prompt": "on"}, "files": {"video": file}}),
        ("characters", {"data": {"name": "Ada"}, "files": {"video": file}}),
    ]
    for path, sent in asked:
        answer = await edge.client.post(f"/v1/videos/{path}", **sent)
        assert answer.status_code == 400, (path, answer.text)
        assert answer.json()["error"]["code"] == "unsupported_operation"
        assert "skyreels-v3-r2v" in answer.json()["error"]["message"]
    missing = await edge.client.get("/v1/videos/characters/char_1")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_malformed_requests_learn_what_is_wrong_first(edge: Edge) -> None:
    waiting = (await edge.client.post("/v1/videos", json=body())).json()["id"]
    done = await finished(edge)
    file = ("a.mp4", b"video")
    asked: list[tuple[str, dict[str, Any], int, str]] = [
        (f"{done}/remix", {"json": {}}, 400, "prompt"),
        (f"{done}/remix", {"json": {"prompt": ""}}, 400, "prompt"),
        (f"{done}/remix", {"json": {"prompt": "x", "seed": "y"}}, 400, "seed"),
        (f"{done}/remix", {"content": b"prompt"}, 400, "multipart"),
        (f"{waiting}/remix", {"json": {"prompt": "x"}}, 409, "only a completed"),
        ("video_none/remix", {"json": {"prompt": "x"}}, 404, "video_none"),
        ("extensions", {"json": {"prompt": "on", "seconds": {}, "video": {"id": done}}}, 400, "seconds"),
        ("extensions", {"json": {"prompt": "on", "seconds": "8"}}, 400, "video"),
        ("edits", {"json": {"prompt": "on", "video": {"id": waiting}}}, 409, "only a completed"),
        ("edits", {"data": {"prompt": "on"}, "files": {"video": ("a.mp4", b"")}}, 400, "empty"),
        ("edits", {"data": {"prompt": "on"}, "files": {"image": file}}, 400, "image"),
        ("edits", {"data": {"prompt": "on", "video[id]": done}, "files": {"video": file}}, 400, "twice"),
        ("edits", {"data": {"prompt": "on"}, "files": [("video", file), ("video", file)]}, 400, "twice"),
        ("characters", {"data": {"name": "Ada"}, "files": {}}, 400, "multipart"),
        ("characters", {"json": {"name": "Ada"}}, 400, "video is required"),
        ("characters", {"data": {}, "files": {"video": file}}, 400, "name"),
    ]
    for path, sent, status, words in asked:
        answer = await edge.client.post(f"/v1/videos/{path}", **sent)
        assert answer.status_code == status, (path, sent, answer.text)
        assert answer.json()["error"]["code"] != "unsupported_operation"
        assert words in answer.json()["error"]["message"]


# -- errors of every kind --------------------------------------------------------------------------------------------


class Broken:
    """A store in which something is badly wrong."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get_job(self, job_id: str, tenant_id: str) -> Job:
        raise ZeroDivisionError("secret detail")


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged."""
    found: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(JsonFormatter().format(record)))

    handler = Keep()
    for one in logger().handlers[0].filters:
        handler.addFilter(one)
    logger().addHandler(handler)
    yield found
    logger().removeHandler(handler)


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("GET", "/v1/videos/video_none", {}, 404),
        ("PUT", "/v1/videos", {}, 405),
        ("GET", "/v1/videos?limit=x", {}, 400),
        ("GET", "/v1/videos?order=up", {}, 400),
        ("GET", "/v1/videos?after=%00", {}, 400),
        ("GET", "/v1/videos/%00", {}, 400),
        ("GET", "/v1/videos/%FF%FE", {}, 404),
        ("GET", "/v1/videos?after=none", {}, 404),
        ("GET", f"/v1/videos/video_none/preview/0/0.m4s?index={2**64}", {}, 400),
        ("GET", f"/v1/videos/video_none/preview/{2**64}/0.m4s", {}, 404),
        ("POST", "/v1/videos", {"content": b"x" * 400_000}, 413),
        ("POST", "/v1/videos", {"content": b'{"prompt": "\xff"}', "headers": JSON}, 400),
        ("POST", "/v1/videos", {"content": rb'{"prompt": "\ud800"}', "headers": JSON}, 400),
        ("POST", "/v1/videos", {"json": {"prompt": "a\0b", "images": [uri(png())]}}, 400),
        ("POST", "/v1/videos", {"content": b"[" * 100_000, "headers": JSON}, 400),
        ("POST", "/v1/videos", {"content": b'{"seed": ' + b"9" * 5000 + b"}"}, 400),
        ("POST", "/v1/videos", {"json": {"prompt": "x", "seconds": "٣"}}, 400),
        ("POST", "/v1/videos", {"json": {"prompt": "x", "size": "1" * 9000}}, 400),
        ("POST", "/v1/videos", {"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400),
        ("POST", "/v1/videos", {"content": b"--x\r\n\r\n", "headers": {"content-type": FORM}}, 400),
        ("POST", "/v1/videos", {"content": b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
                                "headers": {"content-type": FORM}}, 400),
        ("POST", "/v1/videos", {"content": b"--x--\r\n", "headers": {"content-type": FORM + "; charset=none"}}, 400),
    ],
)  # fmt: skip
async def test_every_refusal_has_the_envelope_and_an_id(
    edge: Edge, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    answer = await edge.client.request(method, path, **sent)
    assert answer.status_code == status, answer.text
    error = ErrorBody.model_validate_json(answer.content).error
    assert error.message.endswith("."), error.message
    assert len(error.message) < 10_000
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_wrong_method_is_told_all_that_there_are(edge: Edge) -> None:
    answer = await edge.client.put("/v1/videos/video_1")
    assert answer.json()["error"]["message"] == "This address takes DELETE and GET; got PUT."
    assert answer.headers["allow"] == "DELETE, GET"


async def test_a_value_of_no_type_that_would_do_is_told_each(edge: Edge) -> None:
    answer = await edge.client.post("/v1/videos", json={"prompt": "x", "seconds": 5.5})
    error = answer.json()["error"]
    assert error["param"] == "seconds"
    assert "valid string" in error["message"] and "valid integer" in error["message"]


async def test_a_mistake_of_the_server_is_told_without_its_text_and_logged_with_the_id(
    edge: Edge, lines: list[dict[str, Any]]
) -> None:
    edge.app.state.services = replace(edge.app.state.services, store=Broken(edge.store))
    answer = await edge.client.get("/v1/videos/video_1")
    error = ErrorBody.model_validate_json(answer.content).error
    assert (answer.status_code, error.type, error.code) == (500, "server_error", "internal_error")
    assert "secret" not in answer.text
    (line,) = [line for line in lines if line["message"] == "request failed"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "secret detail" in line["exception"]


# -- the description -------------------------------------------------------------------------------------------------


async def test_the_description_says_what_happens(edge: Edge) -> None:
    schema = (await edge.client.get("/openapi.json")).json()
    operations = {
        f"{method} {path}": operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    for name, operation in operations.items():
        assert "422" not in operation["responses"], name
        assert {"400", "413", "500", "503"} <= operation["responses"].keys(), name
        for status, response in operation["responses"].items():
            if status >= "400" and name.partition(" ")[2].startswith("/v1/"):
                reference = response["content"]["application/json"]["schema"]["$ref"]
                assert reference == "#/components/schemas/ErrorBody", (name, status)
    create = operations["post /v1/videos"]["requestBody"]["content"]
    assert create["application/json"]["schema"]["required"] == ["prompt"]
    assert create["multipart/form-data"]["schema"]["properties"]["images"]["items"]["format"] == "binary"
    content = operations["get /v1/videos/{video_id}/content"]["responses"]
    assert {"200", "206", "304", "404", "409", "416"} <= content.keys()
    assert set(content["200"]["content"]) == {"video/mp4", "video/webm", "video/quicktime", "image/webp", "image/jpeg"}
    for path, first in (("{video_id}/remix", "200"), ("extensions", "200"), ("edits", "400"), ("characters", "400")):
        responses = operations[f"post /v1/videos/{path}"]["responses"]
        assert min(responses) == first
