"""The Runware dialect at the door: arrays of tasks, every rule, results."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.errors import LimitExceeded, Unavailable
from cluster.files import FileInfo, NewFile
from cluster.records import Container, Dialect, Event, Extension, JobState
from deployments.api.links import Links
from deployments.api.renderers import renderers
from deployments.api.runware.router import Outcome, refused
from deployments.api.runware.views import results, webhook
from tests.unit.cluster.makers import EPOCH
from tests.unit.deployments.api.conftest import Edge, open_edge, with_extender
from tests.unit.deployments.api.jobs import BROKEN, done, job
from tests.unit.deployments.api.test_videos import png, uri

PATH = "/runware/v1"
LINKS = Links("https://edge")
IMAGE = uri(png(32, 18))
VIDEO = "https://videos.example/a.mp4"
FILE = str(uuid.uuid4())


def group(tag: str = "@ball", count: int = 1, **fields: Any) -> dict[str, Any]:
    return {"type": "image", "images": [IMAGE] * count, "tag": tag, **fields}


def r2v(**fields: Any) -> dict[str, Any]:
    return {
        "taskType": "videoInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "skywork:skyreels-v3@r2v",
        "positivePrompt": "@ball rolls",
        "resolution": "64p",
        "duration": 1,
        "inputs": {"referenceImages": [group()]},
        **fields,
    }


def v4(**fields: Any) -> dict[str, Any]:
    task = {"model": "skywork:skyreels@v4", "positivePrompt": "A ball", "resolution": "720p", "duration": 5.5}
    return r2v(**(task | {"inputs": {}} | fields))


def v4_with(prompt: str = "@ball and @clip", **inputs: Any) -> dict[str, Any]:
    return v4(positivePrompt=prompt, inputs=inputs)


def clip(**fields: Any) -> dict[str, Any]:
    return {"type": "extend", "tag": "@clip", "video": VIDEO, **fields}


def get(name: str | list[str]) -> dict[str, Any]:
    return {"taskType": "getResponse", "taskUUID": name}


async def post(edge: Edge, *tasks: Any) -> httpx.Response:
    return await edge.client.post(PATH, json=list(tasks))


async def test_a_task_is_acknowledged_and_kept_whole(edge: Edge) -> None:
    task = r2v(
        outputFormat="WEBM",
        outputQuality=50,
        ttl=600,
        includeCost=True,
        safety={"checkContent": False, "mode": "none"},
        settings={"promptExtend": False},
        outputType="URL",
        deliveryMethod="async",
    )
    response = await post(edge, task)
    assert response.status_code == 200, response.text
    (entry,) = response.json()["data"]
    assert entry == {
        "taskType": "videoInference",
        "taskUUID": task["taskUUID"],
        "settings": {"audio": False, "promptExtend": False},
    }
    assert "errors" not in response.json()
    request = (await edge.store.find_task(task["taskUUID"].upper(), "default")).request
    assert (request.prompt, request.resolution, request.duration_s) == ("@ball rolls", "64P", 1)
    assert (request.width, request.height) == (112, 64)  # by the first reference
    assert (request.output.container, request.output.quality) == (Container.WEBM, 50)
    assert (request.delivery.ttl_s, request.delivery.include_cost) == (600, True)
    assert request.delivery.task_id == task["taskUUID"]
    assert edge.wakes == ["wake"]


async def test_defaults_and_explicit_sizes(edge: Edge) -> None:
    by_default, sized = r2v(), r2v(width=1280, height=720, duration=10.0)
    del by_default["resolution"], by_default["duration"], sized["resolution"]
    assert (await post(edge, by_default, sized)).status_code == 200
    first = (await edge.store.find_task(by_default["taskUUID"], "default")).request
    assert (first.resolution, first.duration_s, first.output.container, first.output.quality) == (
        "64P", 1, Container.MP4, 95,
    )  # fmt: skip
    second = (await edge.store.find_task(sized["taskUUID"], "default")).request
    assert (second.resolution, second.width, second.height, second.duration_s) == ("720P", 1280, 720, 10)


async def test_groups_are_read_in_order(edge: Edge) -> None:
    groups = [group("@tall", images=[uri(png(18, 32))]), group("@ball", 3)]
    task = r2v(positivePrompt="@ball meets @tall", inputs={"referenceImages": groups})
    assert (await post(edge, task)).status_code == 200
    request = (await edge.store.find_task(task["taskUUID"], "default")).request
    assert [(image.width, image.height) for image in request.images] == [(18, 32)] + [(32, 18)] * 3
    assert (request.width, request.height) == (64, 112)


async def test_good_tasks_go_on_beside_bad_ones(edge: Edge) -> None:
    good, bad, worse = r2v(), r2v(outputQuality=10, numberResults=5, fps=3), {"taskType": "imageInference"}
    response = await post(edge, bad, good, worse, get(good["taskUUID"]), get(FILE), 7)
    assert response.status_code == 200
    answer = response.json()
    assert [entry["taskUUID"] for entry in answer["data"]] == [good["taskUUID"]] * 2
    assert answer["data"][1]["status"] == "processing"
    named = {"taskUUID": bad["taskUUID"], "taskType": "videoInference"}
    assert [(e["code"], e.get("parameter")) for e in answer["errors"]] == [
        ("invalidParameter", "outputQuality"),
        ("invalidParameter", "numberResults"),
        ("unknownParameter", "fps"),
        ("invalidParameter", "taskType"),
        ("notFound", "taskUUID"),
        ("invalidParameter", None),
    ]
    assert all(named.items() <= entry.items() and entry["message"] for entry in answer["errors"][:3])
    assert answer["errors"][4]["taskUUID"] == FILE
    alone = await post(edge, bad)
    assert alone.status_code == 400
    assert set(alone.json()) == {"errors"}


# A task, the parameter at fault, and words of the reason.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (r2v(taskUUID="abc"), "taskUUID", "UUID v4"),
    (r2v(taskUUID=str(uuid.uuid1())), "taskUUID", "UUID v4"),
    (r2v(outputType="base64"), "outputType", "URL"),
    (r2v(outputFormat="GIF"), "outputFormat", "MP4"),
    (r2v(outputQuality=19), "outputQuality", "20"),
    (r2v(outputQuality=100), "outputQuality", "99"),
    (r2v(deliveryMethod="sync"), "deliveryMethod", "async"),
    (r2v(ttl=59), "ttl", "60"),
    (r2v(numberResults=0), "numberResults", "1"),
    (r2v(numberResults=5), "numberResults", "4"),
    (r2v(positivePrompt="x" * 5121), "positivePrompt", "5120"),
    (r2v(positivePrompt=" "), "positivePrompt", "empty"),
    (r2v(model="skywork:skyreels-v3"), "model", "served models: skyreels-v3-r2v"),
    (r2v(model="skyreels-v1-i2v", inputs={}, duration=4, resolution="540p"), "inputs.referenceImages", "1 to 1"),
    (r2v(seed=1), "seed", "not a parameter"),
    (r2v(width=1280), "height", "together"),
    (r2v(width=1280, height=720), "resolution", "not both"),
    (r2v(resolution=None, width=1280, height=721), "width", "1280x721"),
    (r2v(resolution="1080p"), "resolution", "64p, 480p, 540p, 720p"),
    (r2v(duration=5.5), "duration", "whole seconds"),
    (r2v(duration=11), "duration", "1 to 10"),
    (r2v(duration="5"), "duration", "number"),
    (r2v(safety={"checkContent": True}), "safety.checkContent", "No content checker"),
    (r2v(safety={"mode": "fast"}), "safety.mode", "No content checker"),
    (r2v(safety={"mode": "full"}), "safety.mode", "No content checker"),
    (r2v(safety={"mode": "some"}), "safety.mode", "none"),
    (r2v(settings={"promptExtend": True}), "settings.promptExtend", "No prompt extender"),
    (r2v(settings={"audio": True}), "settings.audio", "no sound"),
    (r2v(inputs={}), "inputs.referenceImages", "1 to 4 reference images; got 0"),
    (r2v(inputs={"referenceImages": [group(count=5)]}), "inputs.referenceImages", "1 to 4 reference images; got 5"),
    (r2v(inputs={"referenceImages": [group(type="grid")]}), "inputs.referenceImages[0].type", "image"),
    (r2v(inputs={"referenceImages": [group(audio=VIDEO)]}), "inputs.referenceImages[0].audio", "no voice"),
    (r2v(inputs={"referenceImages": [group()], "frameImages": [IMAGE]}), "inputs.frameImages", "no frame images"),
    (r2v(positivePrompt="@ball @clip", inputs={"referenceImages": [group()], "referenceVideos": [clip()]}),
     "inputs.referenceVideos", "no reference video"),
    (r2v(inputs={"referenceImages": [group(images=["x y"])]}), "inputs.referenceImages[0].images[0]", "neither"),
    (r2v(inputs={"referenceImages": [group(images=[uri(b"x")])]}), "inputs.referenceImages[0].images[0]", "image"),
    (r2v(inputs={"referenceImages": [group(images=["http://10.0.0.1/a.png"])]}),
     "inputs.referenceImages[0].images[0]", "public"),
    (r2v(inputs={"referenceImages": [group("ball")]}), "inputs.referenceImages[0].tag", "@"),
    (r2v(inputs={"referenceImages": [group("@cube")]}), "inputs.referenceImages[0].tag", "does not mention @cube"),
    (r2v(inputs={"referenceImages": [group(), group()]}), "inputs.referenceImages[1].tag", "used twice"),
    (r2v(positivePrompt="@ball hits @cube"), "positivePrompt", "@cube"),
    (v4(duration=2.9), "duration", "3 to 15"),
    (v4(duration=15.1), "duration", "3 to 15"),
    (v4(resolution="540p"), "resolution", "480p, 720p, 1080p"),
    (v4(resolution=None), "resolution", "inputs.frameImages, inputs.referenceVideos, width and height, or resolution"),
    (v4(resolution=None, width=1280, height=1280), "width", "1280x1280"),
    (v4(resolution=None, width=1920, height=1081), "width", "1920x1081"),
    (v4_with(referenceImages=[group(f"@{n}") for n in range(4)]), "inputs.referenceImages", "3"),
    (v4_with(referenceImages=[group(count=6)]), "inputs.referenceImages[0].images", "5"),
    (v4_with(referenceImages=[group(), group("@clip", type="grid")]), "inputs.referenceImages", "same type"),
    (v4_with(referenceImages=[group(count=2, type="grid")]), "inputs.referenceImages", "one collage"),
    (v4_with(referenceImages=[group(type="grid", audio=VIDEO)]), "inputs.referenceImages[0].audio", "collage"),
    (v4_with(referenceImages=[group(audio=IMAGE)]), "inputs.referenceImages[0].audio", "URL or the id"),
    (v4_with(referenceVideos=[clip()], referenceImages=[group()]), "inputs.referenceVideos", "cannot be combined"),
    (v4_with(referenceVideos=[clip(), clip()]), "inputs.referenceVideos", "1"),
    (v4_with("@clip", referenceVideos=[clip(video=IMAGE)]), "inputs.referenceVideos[0].video", "URL or the id"),
    (v4_with("@clip", referenceVideos=[clip(type="motion")]), "inputs.referenceVideos[0].type", "extend"),
    (v4_with(frameImages=[IMAGE] * 9), "inputs.frameImages", "8"),
    (v4_with(frameImages=[{"image": IMAGE, "frame": -1}]), "inputs.frameImages[0].frame", "0"),
    (v4_with(frameImages=[{"image": IMAGE, "frame": 176}]), "inputs.frameImages[0].frame", "0 to 175"),
    (v4_with(frameImages=[{"image": IMAGE, "frame": "last"}, {"image": IMAGE, "frame": 175}]),
     "inputs.frameImages", "same position"),
    (v4(positivePrompt="@clip", inputs={"referenceVideos": [clip(type="reference")]}, settings={"audio": True}),
     "settings.audio", "own sound"),
]  # fmt: skip


async def test_refusals_name_the_parameter_and_the_reason(edge: Edge) -> None:
    response = await post(edge, *(task for task, _, _ in REFUSED))
    assert response.status_code == 400, response.text
    by_task = {entry["taskUUID"]: entry for entry in reversed(response.json()["errors"])}
    for task, param, words in REFUSED:
        entry = by_task[task["taskUUID"]]
        assert entry["parameter"] == param, (task, entry)
        assert words in entry["message"], (task, entry)
        assert entry["taskType"] == "videoInference"
    assert (await edge.client.get("/v1/videos")).json()["data"] == []
    assert edge.files() == []


@pytest.mark.parametrize(
    ("asked", "applied"), [({}, True), ({"promptExtend": True}, True), ({"promptExtend": False}, False)]
)
async def test_prompts_are_extended_unless_the_task_says_no(
    tmp_path: Path, asked: dict[str, bool], applied: bool
) -> None:
    async with open_edge(tmp_path, config=with_extender(tmp_path)) as edge:
        task = r2v(settings=asked)
        (entry,) = (await post(edge, task)).json()["data"]
        job = await edge.store.find_task(task["taskUUID"], "default")
    assert entry["settings"] == {"audio": False, "promptExtend": applied}
    assert job.request.prompt_extend is applied
    assert job.graph == ("r2v+prompt" if applied else "r2v")


async def test_a_valid_task_of_a_model_that_is_not_served_says_what_is(edge: Edge) -> None:
    valid = [
        v4(settings={"audio": True, "promptExtend": True}),
        v4(model="SKYREELS-V4", resolution=None, width=848, height=480),
        v4(resolution=None, width=1088, height=1920),
        v4(resolution=None, inputs={"frameImages": [IMAGE, {"image": VIDEO, "frame": "last"}]}),
        v4(inputs={"frameImages": [{"image": IMAGE, "frame": n} for n in (0, 40, 175)]}),
        v4_with("@ball, @a and @b", referenceImages=[group(count=5, audio=VIDEO), group("@a"), group("@b")]),
        v4_with("@ball", referenceImages=[group(type="grid")]),
        v4_with("@clip", referenceVideos=[clip()]),
        v4(positivePrompt="mail me @home", duration=15, safety={"checkContent": True}),
    ]
    response = await post(edge, *valid)
    assert response.status_code == 400
    for task, entry in zip(valid, response.json()["errors"], strict=True):
        assert (entry["taskUUID"], entry["code"], entry["parameter"]) == (task["taskUUID"], "modelNotServed", "model")
        assert "not served here; served models: skyreels-v3-r2v" in entry["message"]


async def test_uploaded_media_are_measured_for_a_model_that_is_not_served(edge: Edge) -> None:
    async def keep(kind: str, **facts: Any) -> str:
        name = f"file-{uuid.uuid4()}"
        info = FileInfo(kind, f"{kind}/x", **facts)
        new = NewFile(name, "a", "user_data", f"file:///{name}", 1, "ab", info, 60.0)
        return (await edge.store.create_file("default", new)).id

    good = await keep("video", width=1920, height=972, duration_s=15.0)
    small = await keep("video", width=1920, height=971, duration_s=5.0)
    long = await keep("video", width=1920, height=1080, duration_s=15.1)
    voice = await keep("audio", duration_s=15.0)
    speech = await keep("audio", duration_s=16.0)
    image = await keep("image", width=10, height=10)
    video, audio = "inputs.referenceVideos[0].video", "inputs.referenceImages[0].audio"
    cases = [
        (v4_with("@clip", referenceVideos=[clip(video=good)]), "model", "not served here"),
        (
            v4_with("@clip", referenceVideos=[clip(video=small)]),
            video,
            "at least 1866240 pixels; the file has 1920x971",
        ),
        (v4_with("@clip", referenceVideos=[clip(video=long)]), video, "at most 15 seconds; the file lasts 15.1"),
        (v4_with("@clip", referenceVideos=[clip(video=image)]), video, "must be a video"),
        (v4_with("@clip", referenceVideos=[clip(video=FILE)]), video, "does not exist"),
        (v4_with("@ball", referenceImages=[group(audio=voice, images=[image])]), "model", "not served here"),
        (v4_with("@ball", referenceImages=[group(audio=speech)]), audio, "at most 15 seconds"),
        (v4_with("@ball", referenceImages=[group(audio=good)]), audio, "must be sound"),
        (v4_with("@ball", referenceImages=[group(images=[good])]), "inputs.referenceImages[0].images[0]", "an image"),
        (v4_with("x", frameImages=[uri(b"no image")]), "inputs.frameImages[0].image", "image"),
    ]
    for task, param, words in cases:
        (entry,) = (await post(edge, task)).json()["errors"]
        assert entry["parameter"] == param, (task, entry)
        assert words in entry["message"], (task, entry)


async def test_arrays(edge: Edge) -> None:
    for body in ({}, [], r2v(), [get(FILE)] * 101, 7, "x"):
        response = await edge.client.post(PATH, json=body)
        assert response.status_code == 400
        assert "array of 1 to 100 tasks" in response.json()["errors"][0]["message"]
    for method, path, status in (("GET", PATH, 405), ("POST", "/runware/v2", 404)):
        response = await edge.client.request(method, path)
        assert response.status_code == status
        assert response.json()["errors"][0]["code"] in {"methodNotAllowed", "notFound"}


async def test_the_same_task_again_is_the_same_job(edge: Edge) -> None:
    task = r2v()
    again = {**task, "taskUUID": task["taskUUID"].upper(), "numberResults": 1}
    first, second = await post(edge, task, again), await post(edge, task)
    assert first.json()["data"][0] == second.json()["data"][0]
    other = await post(edge, {**task, "positivePrompt": "the @ball"})
    assert other.status_code == 400
    (entry,) = other.json()["errors"]
    assert (entry["code"], entry["parameter"]) == ("conflict", "taskUUID")
    (only,) = (await edge.client.get("/v1/videos")).json()["data"]
    await edge.client.delete(f"/v1/videos/{only['id']}")
    deleted = await post(edge, task)
    assert "used before" in deleted.json()["errors"][0]["message"]


async def test_calls_at_once_with_one_task_make_one_job(edge: Edge) -> None:
    task = r2v()
    answers = await asyncio.gather(*(post(edge, task) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    (only,) = (await edge.client.get("/v1/videos")).json()["data"]
    assert {path.parts[-3] for path in edge.files()} == {only["id"]}  # the slower calls left no file


async def test_get_response_of_several_tasks(edge: Edge) -> None:
    first, second = r2v(), r2v()
    await post(edge, first, second)
    names = [first["taskUUID"], second["taskUUID"], FILE]
    answer = (await post(edge, get(names))).json()
    assert [(entry["taskUUID"], entry["status"]) for entry in answer["data"]] == [
        (names[0], "processing"),
        (names[1], "processing"),
    ]
    assert [entry["taskUUID"] for entry in answer["errors"]] == [FILE]
    found = await edge.store.find_task(names[0], "default")
    await edge.client.post(f"/v1/videos/{found.id}/cancel")
    ended = await post(edge, get(names[0]))
    assert ended.status_code == 200
    assert ended.json()["data"] == []
    (entry,) = ended.json()["errors"]
    assert (entry["status"], entry["code"], entry["taskUUID"]) == ("error", "cancelled", names[0])
    assert (await post(edge, get([]))).status_code == 400


def test_results_and_their_webhooks() -> None:
    delivered = {"delivery": done().request.delivery.__class__(task_id=FILE, include_cost=True)}
    finished = replace(done(**delivered, duration_s=5), cost_usd=Decimal("0.20"))
    (entry,), none = results(finished, LINKS)
    assert none == []
    assert uuid.UUID(entry.pop("videoUUID"))
    assert entry == {
        "taskType": "videoInference",
        "taskUUID": FILE,
        "status": "success",
        "videoURL": "https://edge/v1/videos/video_1/content",
        "seed": 7,
        "cost": 0.2,
    }
    assert webhook(finished, 0, LINKS) == {"data": results(finished, LINKS)[0]}
    assert "cost" not in results(done(), LINKS)[0][0]
    both = replace(done(n=2, **delivered), state=JobState.RUNNING)
    partly = replace(both, results=(both.results[0], replace(both.results[1], artifact=None)))
    (first, waited), _ = results(partly, LINKS)
    assert (first["status"], first["seed"], waited) == (
        "success", 7, {"taskType": "videoInference", "taskUUID": FILE, "status": "processing"},
    )  # fmt: skip
    (_, second), _ = results(both, LINKS)
    assert (second["videoURL"], second["seed"]) == ("https://edge/v1/videos/video_1/content?index=1", 8)
    assert webhook(both, 1, LINKS) == {"data": [second]}
    failed = job(JobState.FAILED, **delivered)
    error = {"taskUUID": FILE, "taskType": "videoInference", "status": "error"}
    assert results(failed, LINKS) == ([], [{"code": "outOfMemory", "message": BROKEN.message, **error}])
    assert webhook(failed, None, LINKS) == {"errors": results(failed, LINKS)[1]}
    waiting, _ = results(job(JobState.RUNNING, n=3, **delivered), LINKS)
    assert [entry["status"] for entry in waiting] == ["processing"] * 3


def test_a_wait_that_every_task_needs_is_one_for_the_call() -> None:
    wait = Outcome(errors=[{"code": "x"}], refusal=LimitExceeded("Wait.", retry_after_s=2.5))
    down = Outcome(errors=[{"code": "y"}], refusal=Unavailable("Wait.", retry_after_s=9))
    for outcomes, status, header in (([wait, wait], 429, "3"), ([down], 503, "9"), ([wait, down], 400, None)):
        answer = refused(outcomes, [entry for outcome in outcomes for entry in outcome.errors])
        assert (answer.status_code, answer.headers.get("retry-after")) == (status, header)


def test_the_renderers_speak_their_dialects() -> None:
    event = Event("video_1", 9, "state", {"state": "done"}, EPOCH)
    render = renderers(LINKS)
    assert render[Dialect.RUNWARE](done(), event, 0) == webhook(done(), 0, LINKS)
    assert render[Dialect.WAVESPEED](done(), event, None)["status"] == "completed"


def test_a_result_tells_the_extended_prompt_and_no_kept_one() -> None:
    for kept, shown in ((None, "a ball rolls slowly"), ("The model's answer is empty.", None)):
        made = replace(done(), extension=Extension("a ball rolls slowly", kept))
        (entry,), _ = results(made, LINKS)
        assert entry.get("extendedPrompt") == shown
