"""The WaveSpeed dialect at the door: paths, parameters, envelope."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cluster.records import JobState, StageState, StageStatus
from deployments.api.links import Links
from deployments.api.wavespeed.views import prediction, webhook
from tests.unit.cluster.makers import EPOCH
from tests.unit.deployments.api.conftest import Edge
from tests.unit.deployments.api.jobs import done, job
from tests.unit.deployments.api.test_videos import png, uri

R2V = "/api/v3/skywork-ai/skyreels-v3/reference-to-video"
V1 = "/api/v3/wavespeed-ai/SkyReels-V1"
LINKS = Links("https://edge")


def r2v(**fields: Any) -> dict[str, Any]:
    return {"prompt": "A red ball", "images": [uri(png())], "aspect_ratio": "16:9", "duration": 5, **fields}


def v1(**fields: Any) -> dict[str, Any]:
    return {"prompt": "A red ball", "image": uri(png()), **fields}


async def test_a_task_is_created_and_read(edge: Edge) -> None:
    response = await edge.client.post(R2V, json=r2v())
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["code"], answer["message"]) == (200, "success")
    data = answer["data"]
    assert set(data) == {"id", "model", "outputs", "urls", "status", "created_at", "error", "timings"}
    assert data["model"] == "skywork-ai/skyreels-v3/reference-to-video"
    assert (data["status"], data["outputs"], data["error"], data["timings"]) == ("created", [], "", {"inference": 0})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["created_at"])
    assert data["urls"]["get"] == f"http://edge/api/v3/predictions/{data['id']}/result"
    assert (await edge.client.get(data["urls"]["get"])).json() == answer
    assert (await edge.client.get(f"/api/v3/predictions/{data['id']}")).json() == answer
    video = (await edge.client.get(f"/v1/videos/{data['id']}")).json()
    assert (video["seconds"], video["aspect_ratio"], video["size"]) == ("5", "16:9", "112x64")
    assert edge.wakes == ["wake"]


async def test_what_is_left_out_is_as_documented(edge: Edge) -> None:
    body = {"prompt": "A red ball", "images": [uri(png(18, 32))]}
    data = (await edge.client.post(R2V, json=body)).json()["data"]
    video = (await edge.client.get(f"/v1/videos/{data['id']}")).json()
    assert (video["seconds"], video["aspect_ratio"]) == ("5", "16:9")


async def test_both_missing_parameters_are_named_in_one_message(edge: Edge) -> None:
    response = await edge.client.post(R2V, json={"aspect_ratio": "16:9", "duration": 5})
    assert response.status_code == 400
    assert response.json() == {"code": 400, "message": "Missing required parameters: prompt, images."}


async def test_other_names_of_the_model_in_any_case(edge: Edge) -> None:
    for path in (
        "/api/v3/Skywork-AI/SkyReels-V3/Reference-To-Video",
        "/api/v3/Skywork/SkyReels-V3-R2V-14B",
        "/api/v3/skywork/skyreels-v3-reference2video",
    ):
        response = await edge.client.post(path, json=r2v())
        assert response.json()["data"]["model"] == "skywork-ai/skyreels-v3/reference-to-video", path


REFUSALS: list[tuple[str, Any, int, str]] = [
    (R2V, r2v(images=[]), 400, "images: "),
    (R2V, r2v(images=[uri(png())] * 5), 400, "images: "),
    (R2V, r2v(images=uri(png())), 400, "images: "),
    (R2V, r2v(images=[uri(png()), "ball.png"]), 400, "images[1]: "),
    (R2V, r2v(images=[uri(b"no image")]), 400, "images[0]: "),
    (R2V, r2v(images=["http://127.0.0.1/a.png"]), 400, "images[0]: "),
    (R2V, r2v(aspect_ratio="4:3"), 400, "aspect_ratio: "),
    (R2V, r2v(duration=11), 400, "duration must be 1 to 10"),
    (R2V, r2v(duration=5.5), 400, "duration: "),
    (R2V, r2v(duration="5"), 400, "duration: "),
    (R2V, r2v(prompt=" "), 400, "prompt must not be empty"),
    (R2V, r2v(seed=1, size="x"), 400, "Unknown parameters: seed, size."),
    (R2V, {"prompt": 1, "fps": 3}, 400, "Missing required parameters: images. Unknown parameters: fps. prompt: "),
    (R2V, [], 400, "body: "),
    (V1, v1(), 404, "is not served here; served models: skyreels-v3-r2v"),
    (V1, v1(seed=2147483647, guidance_scale=20, num_inference_steps=50, negative_prompt="x"), 404, "not served"),
    (V1, v1(seed=-1, guidance_scale=1.5, num_inference_steps=1, aspect_ratio="9:16"), 404, "not served"),
    (V1, {"prompt": "x"}, 400, "Missing required parameters: image."),
    (V1, v1(seed=-2), 400, "seed: "),
    (V1, v1(seed=2147483648), 400, "seed: "),
    (V1, v1(guidance_scale=0.5), 400, "guidance_scale: "),
    (V1, v1(guidance_scale=20.5), 400, "guidance_scale: "),
    (V1, v1(num_inference_steps=0), 400, "num_inference_steps: "),
    (V1, v1(num_inference_steps=51), 400, "num_inference_steps: "),
    (V1, v1(image="ball.png"), 400, "image: neither"),
    (V1, v1(image=uri(b"no image")), 400, "image: "),
    (V1, v1(image="https://images.example/a.png"), 404, "not served"),  # nothing is fetched for it
    (V1, v1(prompt=""), 400, "prompt must not be empty"),
    ("/api/v3/wavespeed-ai/flux-dev", v1(), 404, "'wavespeed-ai/flux-dev' is not served here"),
    ("/api/v3/a/b/c", v1(), 404, "'a/b/c' is not served here"),
]


async def test_refusals(edge: Edge) -> None:
    for path, body, status, words in REFUSALS:
        response = await edge.client.post(path, json=body)
        answer = response.json()
        assert (response.status_code, answer["code"]) == (status, status), (body, answer)
        assert set(answer) == {"code", "message"}
        assert words in answer["message"], (body, answer)
    assert (await edge.client.get("/v1/videos")).json()["data"] == []
    assert edge.files() == []


async def test_bodies_that_are_no_json(edge: Edge) -> None:
    for content in (
        b"{",
        b"",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"prompt": "\\ud800"}',
        b"9" * 5000,
        b"\xff\xfe",
        b"[" + b"1," * 50_000 + b"1]",
    ):
        for path in (R2V, "/runware/v1", "/v1/videos"):
            response = await edge.client.post(path, content=content, headers={"content-type": "application/json"})
            assert response.status_code == 400, (path, content, response.text)


async def test_answers_of_the_http_layer_have_the_envelope(edge: Edge) -> None:
    for method, path, status in (
        ("GET", "/api/v3/predictions/none/result", 404),
        ("GET", "/api/v3/nothing", 404),
        ("PUT", R2V, 405),
        ("POST", "/api/v3/predictions/none/result", 405),
        ("DELETE", "/api/v3/predictions/none", 405),
    ):
        response = await edge.client.request(method, path)
        assert (response.status_code, response.json()["code"]) == (status, status), path
    large = await edge.client.post(R2V, content=b"x" * 400_000)
    assert (large.status_code, large.json()["code"]) == (413, 413)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (JobState.QUEUED, "created"),
        (JobState.RUNNING, "processing"),
        (JobState.PUBLISHING, "processing"),
        (JobState.DONE, "completed"),
        (JobState.FAILED, "failed"),
        (JobState.CANCELLED, "failed"),
        (JobState.EXPIRED, "failed"),
    ],
)
def test_statuses_and_outputs(state: JobState, status: str) -> None:
    view = prediction(done() if state is JobState.DONE else job(state), LINKS)
    assert view.status == status
    assert bool(view.outputs) == (status == "completed")
    assert bool(view.error) == (status == "failed")


def test_a_finished_job() -> None:
    stage = StageStatus(
        "text", 0, 0, StageState.DONE, 1, 0, 0, EPOCH, EPOCH, EPOCH, EPOCH + timedelta(seconds=1.25), "w"
    )
    slow = replace(stage, stage="denoise", claimed_at=EPOCH, done_at=EPOCH + timedelta(seconds=2))
    view = prediction(replace(done(), stages=(stage, slow)), LINKS)
    assert view.outputs == ["https://edge/v1/videos/video_1/content"]
    assert view.timings.inference == 3250
    assert view.created_at == "2026-01-01T00:00:00.000Z"
    assert webhook(done(), LINKS) == prediction(done(), LINKS).model_dump()


def test_only_v1_tells_of_checked_contents() -> None:
    assert "has_nsfw_contents" not in webhook(done(), LINKS)
    v1_job = done(model="skyreels-v1-i2v")
    assert webhook(v1_job, LINKS)["has_nsfw_contents"] == []
    assert webhook(v1_job, LINKS)["model"] == "wavespeed-ai/SkyReels-V1"


async def test_links_lead_to_the_public_address_where_there_is_one(edge: Edge) -> None:
    api = edge.config.api.model_copy(update={"public_url": "https://videos.example/base/"})
    config = edge.config.model_copy(update={"api": api})
    edge.app.state.services = replace(edge.app.state.services, config=config)
    data = (await edge.client.post(R2V, json=r2v())).json()["data"]
    assert data["urls"]["get"] == f"https://videos.example/base/api/v3/predictions/{data['id']}/result"
