"""Clients that others wrote, unmodified, against a real system."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from openai import APIStatusError, BadRequestError, ConflictError, NotFoundError, OpenAI
from PIL import Image

from tests.integration.system import DATA, System

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The Videos API:DeprecationWarning"),
]
MODEL: Any = "skyreels-v3-r2v"
ONE: Any = "1"


def uri(name: str) -> str:
    return "data:image/png;base64," + base64.b64encode((DATA / name).read_bytes()).decode()


@pytest.fixture
def client(system: System) -> Iterator[OpenAI]:
    with OpenAI(api_key="none", base_url=f"{system.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def done(system: System) -> str:
    """A finished video."""
    done: str = system.finish(system.submit()["id"])["id"]
    return done


def test_create_and_poll_downloads_every_variant_and_deletes(client: OpenAI, system: System) -> None:
    with (DATA / "ball.png").open("rb") as image:
        job = client.videos.create_and_poll(
            model=MODEL, prompt="A red ball rolls", seconds=ONE, input_reference=image, poll_interval_ms=100
        )
    assert (job.status, job.progress, job.seconds, job.size) == ("completed", 100, "1", "112x64")
    assert job.completed_at is not None
    assert job.completed_at >= job.created_at
    with av.open(io.BytesIO(client.videos.download_content(job.id).read())) as video:
        assert sum(1 for _ in video.decode(video=0)) == 25
    pictures = {"thumbnail": ("WEBP", (112, 64)), "spritesheet": ("JPEG", (560, 320))}
    for variant, wanted in pictures.items():
        answer = client.videos.download_content(job.id, variant=variant)  # type: ignore[arg-type]
        image_file = Image.open(io.BytesIO(answer.read()))
        assert (image_file.format, image_file.size) == wanted
        assert answer.response.headers["content-type"] == f"image/{wanted[0].lower()}"
    timing = client.videos.with_raw_response.retrieve(job.id).headers["server-timing"]
    assert [part.partition(";")[0] for part in timing.split(", ")] == [
        "queue", "text", "condition", "denoise", "decode", "total",
    ]  # fmt: skip
    assert client.videos.delete(job.id).deleted
    with pytest.raises(NotFoundError):
        client.videos.retrieve(job.id)


def test_references_by_url_and_our_fields(client: OpenAI, system: System) -> None:
    job = client.videos.create(
        model=MODEL,
        prompt="A triangle spins",
        # The method itself takes files only, though its type says otherwise.
        extra_body={
            "input_reference": {"image_url": uri("triangle.png")},
            "resolution": "64P",
            "seed": 3,
            "output_format": "webm",
            "output_quality": 30,
        },
    )
    assert (job.status, job.size) == ("queued", "80x80")
    finished = system.finish(job.id)
    assert (finished["seed"], finished["output_format"]) == (3, "webm")
    answer = client.videos.download_content(job.id)
    assert answer.response.headers["content-type"] == "video/webm"
    with av.open(io.BytesIO(answer.read())) as video:
        assert "vp9" in video.streams.video[0].codec_context.name
        assert sum(1 for _ in video.decode(video=0)) == 25
    with av.open(f"{system.url}/v1/videos/{job.id}/preview", timeout=60) as playlist:
        assert playlist.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in playlist.decode(video=0)) == 25


def test_a_plain_json_body(system: System) -> None:
    """Without any library."""
    request = urllib.request.Request(
        f"{system.url}/v1/videos",
        json.dumps({"prompt": "A ball", "input_reference": {"image_url": uri("ball.png")}, "seconds": "1"}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        job = json.load(answer)
    system.client.delete(f"/v1/videos/{job['id']}").raise_for_status()


def test_listing_goes_on_by_itself(client: OpenAI, system: System) -> None:
    ids = [system.submit()["id"] for _ in range(3)]
    pages = client.videos.list(limit=2)
    assert pages.has_more
    newest = [video.id for _, video in zip(range(3), pages, strict=False)]
    assert newest == ids[::-1]
    rising = [video.id for video in client.videos.list(limit=1, order="asc", after=ids[0])]
    assert rising == ids[1:]
    for job_id in ids:
        client.videos.delete(job_id)


def test_errors_are_the_sdks_classes(client: OpenAI, system: System, done: str) -> None:
    def refused(kind: type[APIStatusError], code: str, call: Any, *args: Any, **kwargs: Any) -> None:
        with pytest.raises(kind) as found:
            call(*args, **kwargs)
        assert found.value.code == code
        assert found.value.request_id is not None
        assert found.value.request_id.startswith("req_")
        assert found.value.message

    videos = client.videos
    refused(BadRequestError, "invalid_request", videos.create, model=MODEL, prompt="")
    refused(NotFoundError, "model_not_found", videos.create, model="sora-2", prompt="A ball")
    refused(NotFoundError, "not_found", videos.retrieve, "video_none")
    refused(NotFoundError, "not_found", videos.delete, "video_none")
    refused(NotFoundError, "not_found", videos.list, after="video_none")
    refused(BadRequestError, "invalid_request", videos.list, limit=0)
    waiting = system.submit(seconds="5")["id"]
    refused(ConflictError, "conflict", videos.download_content, waiting)
    refused(ConflictError, "conflict", videos.remix, waiting, prompt="At night")
    videos.delete(waiting)
    refused(BadRequestError, "unsupported_operation", videos.remix, done, prompt="At night")
    refused(BadRequestError, "unsupported_operation", videos.extend, prompt="On", seconds="8", video=b"file")
    refused(BadRequestError, "unsupported_operation", videos.edit, prompt="On", video=b"file")
    refused(BadRequestError, "unsupported_operation", videos.create_character, name="Ada", video=b"file")
    refused(NotFoundError, "not_found", videos.get_character, "char_1")


def test_litellm(system: System) -> None:
    command = [sys.executable, "-m", "tests.integration.litellm_client", system.url, str(DATA / "ball.png")]
    ran = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    got = json.loads(ran.stdout.splitlines()[-1])
    assert (got["first"], got["last"], got["size"]) == ("queued", "completed", "112x64")
    assert bytes.fromhex(got["files"]["video"])[4:8] == b"ftyp"
    assert bytes.fromhex(got["files"]["thumbnail"])[8:12] == b"WEBP"
    assert bytes.fromhex(got["files"]["spritesheet"])[:3] == b"\xff\xd8\xff"
    assert got["listed"]
    assert "prompt must not be empty" in got["refused"]
