"""The OpenAI Videos dialect at the door: what is accepted, what is refused and in which words."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from deployments.artifacts import job_key
from deployments.sweeper import Sweeper
from deployments.telemetry import logger
from tests.unit.cluster.makers import ARTIFACT
from tests.unit.cluster.store.play import Play, outputs
from tests.unit.deployments.api.conftest import Edge


def png(width: int = 32, height: int = 18) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 10)).save(data, "PNG")
    return data.getvalue()


def uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than anybody has memory for."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def body(**fields: Any) -> dict[str, Any]:
    return {"prompt": "A red ball", "images": [uri(png())], **fields}


async def test_json_is_queued_with_everything_resolved(edge: Edge) -> None:
    response = await edge.client.post("/v1/videos", json=body(seed=-1))
    assert response.status_code == 200, response.text
    job = response.json()
    assert (job["status"], job["progress"], job["phase"]) == ("queued", 0, "queued")
    assert (job["model"], job["seconds"], job["size"], job["frames"]) == ("skyreels-v3-r2v", "1", "112x64", 25)
    assert 0 <= job["seed"] < 2**32
    assert edge.wakes == ["wake"]
    assert response.headers["x-request-id"].startswith("req_")
    assert (await edge.client.get(f"/v1/videos/{job['id']}")).json() == job


async def test_multipart_keeps_the_order_of_files(edge: Edge) -> None:
    files = [("images", ("tall.png", png(18, 32))), ("images", ("wide.png", png(32, 18)))]
    response = await edge.client.post("/v1/videos", data={"prompt": "A ball", "seconds": "2"}, files=files)
    assert response.status_code == 200, response.text
    assert response.json()["size"] == "64x112"  # by the first image
    assert len(edge.files()) == 2


async def test_several_results_are_one_job(edge: Edge) -> None:
    files = [("images", ("wide.png", png()))]
    response = await edge.client.post("/v1/videos", data={"prompt": "A ball", "n": "2", "seed": "5"}, files=files)
    assert response.status_code == 200, response.text
    job = response.json()
    nothing = {"url": None, "nbytes": None}
    assert job["results"] == [{"index": 0, "seed": 5, **nothing}, {"index": 1, "seed": 6, **nothing}]
    assert [(stage["stage"], stage["result"]) for stage in job["stages"]] == [
        ("text", 0), ("condition", 0), ("denoise", 0), ("decode", 0), ("denoise", 1), ("decode", 1),
    ]  # fmt: skip
    single = (await edge.client.post("/v1/videos", json=body(seed=5))).json()
    assert single["results"] == job["results"][:1]


async def test_a_published_result_can_be_fetched_before_the_job_is_done(edge: Edge) -> None:
    job_id = (await edge.client.post("/v1/videos", json=body(n=2, seed=5))).json()["id"]
    leadership = await edge.store.lead("s1", 600.0)
    assert leadership is not None
    play = Play(edge.store, leadership)
    for stage in ("text", "condition"):
        await play.finish(stage, job_id)
    call = (await play.take("denoise", job_id, result=1)).call
    await edge.store.complete(call, outputs("denoise"))
    stored = await edge.artifacts.put_bytes(job_key(job_id, "outputs", "r1-1.mp4"), b"the second")
    artifact = replace(ARTIFACT, uri=stored.uri, nbytes=stored.nbytes, sha256=stored.sha256)
    await edge.store.complete((await play.take("decode", job_id, result=1)).call, outputs("decode"), artifact)
    path = f"/v1/videos/{job_id}"
    first, second = (await edge.client.get(path)).json()["results"]
    assert (first["url"], second["url"], second["nbytes"]) == (None, f"{path}/content?index=1", 10)
    answer = await edge.client.get(second["url"])
    assert (answer.status_code, answer.content) == (200, b"the second")
    assert f'filename="{job_id}-1.mp4"' in answer.headers["content-disposition"]
    assert (await edge.client.get(f"{path}/content")).status_code == 409
    beyond = await edge.client.get(f"{path}/content", params={"index": 2})
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (404, "not_found")
    assert (await edge.client.get(f"{path}/content", params={"index": -1})).status_code == 400
    await edge.client.post(f"{path}/cancel")
    assert (await edge.client.get(second["url"])).content == b"the second"
    await Sweeper(edge.store, edge.artifacts, logger(), keep_s=3600).sweep()
    assert (await edge.client.get(second["url"])).content == b"the second"
    assert (await edge.client.delete(path)).is_success
    assert (await edge.client.get(second["url"])).status_code == 404


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"aspect_ratio": "9:16"}, "64x112"),
        ({"images": [base64.b64encode(png(18, 32)).decode()]}, "64x112"),
        ({"aspect_ratio": "1:1", "resolution": "480P"}, "640x640"),
        ({"size": "1280x720"}, "1280x720"),
        ({"input_reference": {"image_url": uri(png(30, 30))}, "images": None}, "80x80"),
    ],
)
async def test_sizes(edge: Edge, fields: dict[str, Any], size: str) -> None:
    response = await edge.client.post("/v1/videos", json=body(**fields))
    assert response.status_code == 200, response.text
    assert response.json()["size"] == size


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"images": [uri(png())] * 5}, 400, "1 to 4 reference images; got 5"),
        ({"images": []}, 400, "1 to 4 reference images; got 0"),
        ({"images": [uri(b"not an image")]}, 400, "images[0]: "),
        ({"images": [uri(bomb(100_000, 100_000))]}, 400, "at most 1000000 pixels"),
        ({"images": [uri(png()), uri(png()[:40])]}, 400, "images[1]: "),
        ({"images": ["data:image/png;base64,???"]}, 400, "base64"),
        ({"images": ["http://127.0.0.1:9/a.png"]}, 400, "URL"),
        ({"images": ["http://localhost/a.png"]}, 400, "URL"),
        ({"images": ["http://169.254.169.254/latest/meta-data"]}, 400, "URL"),
        ({"images": ["file:///etc/passwd"]}, 400, "http"),
        ({"images": [uri(png()), "ball.png"]}, 400, "images[1]: neither an http(s) URL"),
        ({"images": [uri(png()), base64.b64encode(png()).decode()[:-1]]}, 400, "images[1]: The inline file is not"),
        ({"images": [base64.b64encode(bytes(100_001)).decode()]}, 400, "images[0]: The inline file is larger than"),
        ({"input_reference": {"image_url": "AAAA"}, "images": None}, 400, "input_reference: "),
        ({"images": ["5b1a9f3e-8c1d-4c0e-9a53-2f2c1e7d9b10"]}, 400, "images[0]: File 'file-5b1a9f3e"),
        ({"images": ["http://does-not-exist.invalid/a.png"]}, 400, "URL"),
        ({"aspect_ratio": "21:9"}, 400, "aspect_ratio must be one of 16:9, 9:16, 1:1, 4:3, 3:4"),
        ({"resolution": "1080P"}, 400, "resolution must be one of 64P, 480P, 540P, 720P"),
        ({"size": "1281x720"}, 400, "1281x720 is not offered"),
        ({"size": "big"}, 400, "1280x720"),
        ({"size": "1280x720", "resolution": "720P"}, 400, "not both"),
        ({"seconds": 11}, 400, "seconds must be 1 to 10"),
        ({"seconds": "4.5"}, 400, "whole number"),
        ({"seconds": True}, 400, "seconds"),
        ({"prompt": ""}, 400, "prompt must not be empty"),
        ({"prompt": "x" * 5121}, 400, "at most 5120"),
        ({"prompt": None}, 400, "prompt"),
        ({"model": "sora-2"}, 404, "'sora-2' is not served here; served models: skyreels-v3-r2v"),
        ({"seed": 2**32}, 400, "seed must be"),
        ({"negative_prompt": "blur"}, 400, "no negative prompt"),
        ({"n": 0}, 400, "n must be 1 to 4"),
        ({"n": 5}, 400, "n must be 1 to 4"),
        ({"n": 10**30}, 400, "n must be 1 to 4"),
        ({"fps": 12}, 400, "Unknown field fps"),
    ],
)
async def test_bad_input_is_one_sentence_and_nothing_is_queued(
    edge: Edge, fields: dict[str, Any], status: int, words: str
) -> None:
    response = await edge.client.post("/v1/videos", json=body(**fields))
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert words.lower() in error["message"].lower()
    assert error["type"] == "invalid_request_error"
    assert error["code"]
    assert (await edge.client.get("/v1/videos")).json()["data"] == []
    assert edge.files() == []
    assert edge.wakes == []


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"{", "application/json"), (b"[1]", "application/json"), (b"a=1", "text/plain"), (b"", "multipart/form-data")],
)
async def test_bad_bodies(edge: Edge, content: bytes, kind: str) -> None:
    response = await edge.client.post("/v1/videos", content=content, headers={"content-type": kind})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"]


async def test_large_bodies(edge: Edge) -> None:
    files = [("images", ("a.png", b"x" * 400_000))]
    response = await edge.client.post("/v1/videos", data={"prompt": "A ball"}, files=files)
    assert response.status_code == 413
    one = [("images", ("a.png", b"x" * 150_000))]
    response = await edge.client.post("/v1/videos", data={"prompt": "A ball"}, files=one)
    assert response.status_code == 400
    assert "100000" in response.json()["error"]["message"]


async def test_listing_pages_in_both_orders(edge: Edge) -> None:
    ids = [(await edge.client.post("/v1/videos", json=body())).json()["id"] for _ in range(5)]
    first = (await edge.client.get("/v1/videos", params={"limit": 2})).json()
    assert [job["id"] for job in first["data"]] == ids[:2:-1]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, ids[4], ids[3])
    rest = (await edge.client.get("/v1/videos", params={"limit": 5, "after": ids[3]})).json()
    assert [job["id"] for job in rest["data"]] == ids[2::-1]
    assert not rest["has_more"]
    rising = (await edge.client.get("/v1/videos", params={"order": "asc", "limit": 1})).json()
    assert rising["last_id"] == ids[0]
    assert (await edge.client.get("/v1/videos", params={"limit": 0})).status_code == 400


async def test_cancel_delete_and_content_of_an_unfinished_job(edge: Edge) -> None:
    job = (await edge.client.post("/v1/videos", json=body())).json()
    path = f"/v1/videos/{job['id']}"
    assert (await edge.client.get(f"{path}/content")).status_code == 409
    cancelled = (await edge.client.post(f"{path}/cancel")).json()
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")
    assert (await edge.client.delete(path)).json()["deleted"]
    for gone in (await edge.client.get(path), await edge.client.delete(path), await edge.client.get(f"{path}/content")):
        assert gone.status_code == 404
        assert gone.json()["error"]["code"] == "not_found"


async def test_unknown_paths_and_methods_have_the_same_error_shape(edge: Edge) -> None:
    assert (await edge.client.get("/v1/nothing")).json()["error"]["code"] == "not_found"
    assert (await edge.client.put("/v1/videos")).json()["error"]["code"] == "method_not_allowed"


async def test_a_callers_trace_goes_with_the_job(edge: Edge) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with_caller = await edge.client.post("/v1/videos", json=body(), headers={"traceparent": caller})
    without = await edge.client.post("/v1/videos", json=body())
    invalid = await edge.client.post("/v1/videos", json=body(), headers={"traceparent": "00-what-is-this"})
    ids = [answer.json()["trace_id"] for answer in (with_caller, without, invalid)]
    assert ids[0] == caller.split("-")[1]
    assert len(set(ids)) == 3
    assert all(len(trace_id) == 32 for trace_id in ids)
    job = await edge.store.get_job(with_caller.json()["id"], "default")
    assert str(job.request.trace) == caller
    job = await edge.store.get_job(without.json()["id"], "default")
    assert job.request.trace is not None
    assert not job.request.trace.sampled  # no collector is named
