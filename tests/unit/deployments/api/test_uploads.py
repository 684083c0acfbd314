"""The Files API, and files as inputs of jobs."""

from __future__ import annotations

import hashlib
import io
import re
import wave
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import httpx
import numpy as np
import pytest

from cluster.files import FileInfo, NewFile
from cluster.records import JobState
from deployments.api.services import _tenant
from deployments.sweeper import Sweeper
from deployments.telemetry import logger
from tests.unit.deployments.api.conftest import Edge
from tests.unit.deployments.api.test_videos import body, bomb, png


def mp4(width: int = 64, height: int = 48, frames: int = 12) -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8))
            frame.pts, frame.time_base = index, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return data.getvalue()


def wav(seconds: float = 0.5) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(2 * int(16_000 * seconds)))
    return data.getvalue()


async def upload(edge: Edge, data: bytes, name: str = "ball.png", **fields: str) -> httpx.Response:
    return await edge.client.post("/v1/files", data=fields, files={"file": (name, data, "text/html")})


async def stored(edge: Edge, data: bytes, name: str = "ball.png", **fields: str) -> dict[str, Any]:
    answer = await upload(edge, data, name, **fields)
    assert answer.status_code == 200, answer.text
    file: dict[str, Any] = answer.json()
    return file


@pytest.fixture
def as_tenant(edge: Edge) -> Iterator[Any]:
    """Whose requests the edge takes the next ones for."""

    def become(tenant: str) -> None:
        edge.app.dependency_overrides[_tenant] = lambda: tenant

    yield become
    edge.app.dependency_overrides.clear()


async def test_an_image(edge: Edge) -> None:
    data = png(18, 32)
    file = await stored(edge, data, "my ball.png", purpose="vision")
    assert re.fullmatch(r"file-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", file["id"])
    assert file["expires_at"] - file["created_at"] == edge.config.files.keep_s
    told = {
        "object": "file",
        "bytes": len(data),
        "filename": "my ball.png",
        "purpose": "vision",
        "status": "processed",
        "media_type": "image/png",
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": 18,
        "height": 32,
        "duration_s": None,
    }
    assert file == file | told
    assert (await edge.client.get(f"/v1/files/{file['id']}")).json() == file
    content = await edge.client.get(f"/v1/files/{file['id']}/content")
    assert content.content == data
    assert content.headers["content-type"] == "image/png"  # by its bytes, not as declared
    assert content.headers["content-disposition"] == 'attachment; filename="my ball.png"'
    part = await edge.client.get(f"/v1/files/{file['id']}/content", headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    head = await edge.client.head(f"/v1/files/{file['id']}/content")
    assert head.headers["content-length"] == str(len(data)) and not head.content


async def test_videos_and_sounds_are_probed(edge: Edge) -> None:
    video = await stored(edge, mp4(), "clip.mp4")
    assert (video["media_type"], video["width"], video["height"]) == ("video/mp4", 64, 48)
    assert video["duration_s"] == pytest.approx(0.5, abs=0.1)
    sound = await stored(edge, wav(), "voice.wav")
    assert (sound["media_type"], sound["width"], sound["duration_s"]) == ("audio/wav", None, 0.5)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<html>", "no image, video or sound of a known format"),
        (b"#EXTM3U\nfile:///etc/passwd", "no image, video or sound of a known format"),
        (png()[:60], "damaged or cut off"),
        (bomb(100_000, 100_000), "at most 1000000 pixels"),
        (mp4()[:200], "damaged or cut off"),
        (wav()[:20], "damaged or cut off"),
        (b"RIFF\0\0\0\0WAVE" + bytes(40), "damaged or cut off"),
        (b"\0" * 100_001, "the limit is 100000"),
    ],
)
async def test_what_is_no_good_medium_is_refused_and_leaves_nothing(edge: Edge, data: bytes, words: str) -> None:
    answer = await upload(edge, data)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert words in error["message"] and error["param"] == "file" and error["code"] == "invalid_media"
    assert edge.files() == [] and (await edge.client.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "../x"}, "purpose"),
        ({"colour": "red"}, None),
        ({"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "1"}, "expires_after[seconds]"),
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
    ],
)
async def test_bad_fields(edge: Edge, fields: dict[str, str], param: str | None) -> None:
    answer = await upload(edge, png(), **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert edge.files() == []


async def test_bodies_without_a_file(edge: Edge) -> None:
    for kind in ({"json": {"file": "x"}}, {"data": {"file": "text"}}, {"files": {"other": ("a.png", png())}}):
        answer = await edge.client.post("/v1/files", **kind)
        assert answer.status_code == 400, answer.text
    assert (await upload(edge, bytes(400_000))).status_code == 413


async def test_listing_is_paged_and_goes_on_after_a_deleted_file(edge: Edge) -> None:
    ids = [(await stored(edge, png(), purpose=purpose))["id"] for purpose in ("vision", "batch", "vision")]
    page = (await edge.client.get("/v1/files", params={"limit": 2})).json()
    assert [file["id"] for file in page["data"]] == [ids[2], ids[1]] and page["has_more"]
    assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[2], ids[1])
    assert (await edge.client.delete(f"/v1/files/{ids[1]}")).json() == {"id": ids[1], "object": "file", "deleted": True}
    page = (await edge.client.get("/v1/files", params={"after": ids[1]})).json()
    assert [file["id"] for file in page["data"]] == [ids[0]] and not page["has_more"]
    page = (await edge.client.get("/v1/files", params={"order": "asc", "purpose": "vision"})).json()
    assert [file["id"] for file in page["data"]] == [ids[0], ids[2]]
    assert (await edge.client.get("/v1/files", params={"after": "file-x"})).status_code == 404
    assert (await edge.client.get("/v1/files", params={"limit": 0})).status_code == 400


async def test_a_tenant_sees_its_own_alone(edge: Edge, as_tenant: Any) -> None:
    as_tenant("acme")
    file_id = (await stored(edge, png()))["id"]
    as_tenant("other")
    assert (await edge.client.get("/v1/files")).json()["data"] == []
    for method, path in (("GET", ""), ("GET", "/content"), ("HEAD", "/content"), ("DELETE", "")):
        assert (await edge.client.request(method, f"/v1/files/{file_id}{path}")).status_code == 404
    assert (await edge.client.get("/v1/files", params={"after": file_id})).status_code == 404
    answer = await edge.client.post("/v1/videos", json=body(images=[file_id]))
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("images[0]: File")
    as_tenant("acme")
    assert (await edge.client.post("/v1/videos", json=body(images=[file_id]))).status_code == 200


async def test_a_job_has_its_own_copy(edge: Edge) -> None:
    data = png(18, 32)
    file_id = (await stored(edge, data))["id"]
    plain = file_id.removeprefix("file-")
    answer = await edge.client.post("/v1/videos", json=body(images=[file_id, plain]))
    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == "64x112"
    assert (await edge.client.delete(f"/v1/files/{file_id}")).status_code == 200
    await Sweeper(edge.store, edge.artifacts, logger(), keep_s=3600).sweep()
    job = await edge.store.get_job(answer.json()["id"], edge.config.tenant)
    assert job.state is JobState.QUEUED
    assert {path.parts[-4] for path in edge.files()} == {"jobs"}
    for image in job.request.images:
        assert await edge.artifacts.get_bytes(image.uri, image.sha256) == data


async def test_a_file_that_is_no_image_is_no_reference(edge: Edge) -> None:
    file_id = (await stored(edge, wav(), "voice.wav"))["id"]
    answer = await edge.client.post("/v1/videos", json=body(images=[file_id]))
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert "audio/wav" in message
    assert "an image is needed" in message
    assert answer.json()["error"]["param"] == "images[0]"


async def test_a_damaged_file_is_not_used(edge: Edge) -> None:
    file_id = (await stored(edge, png()))["id"]
    edge.files()[0].write_bytes(b"rotten")
    answer = await edge.client.post("/v1/videos", json=body(images=[file_id]))
    assert answer.status_code == 400
    assert "images[0]: A stored file is damaged" in answer.json()["error"]["message"]
    assert len(edge.files()) == 1


async def test_files_expire(edge: Edge) -> None:
    file = await stored(edge, png(), **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"})
    assert file["expires_at"] - file["created_at"] == 60
    kept = await edge.store.get_file(file["id"], edge.config.tenant)
    assert (kept.expires_at - kept.created_at).total_seconds() == 60
    await edge.store.create_file("default", _expired(kept.uri))
    assert await edge.store.sweepable_files() == ["file-old"]
    assert (await edge.client.get("/v1/files/file-old")).status_code == 404
    await Sweeper(edge.store, edge.artifacts, logger(), keep_s=3600).sweep()
    assert await edge.store.sweepable_files() == []
    assert len(edge.files()) == 1  # the other one


def _expired(uri: str) -> NewFile:
    return NewFile("file-old", "x", "vision", uri, 1, "0", FileInfo("image", "image/png", 1, 1), keep_s=0.0)
