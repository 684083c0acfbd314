"""WaveSpeed's and Runware's own commands against a running system."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import uuid
from typing import Any

import av
import httpx
import pytest

from tests.integration.system import DATA, System, until

pytestmark = pytest.mark.integration

# As WaveSpeed's reference pages print them.
V1 = """curl --location --request POST "https://api.wavespeed.ai/api/v3/wavespeed-ai/SkyReels-V1" \\
--header "Content-Type: application/json" \\
--header "Authorization: Bearer ${WAVESPEED_API_KEY}" \\
--data-raw '{
"prompt": "Camera tracking shot of the woman driving the red convertible along a cliffside road, her hair flowing in \
the wind, ocean reflecting sunlight",
"image": "https://d3gnftk2yhz9lr.wavespeed.ai/media/images/1745145676350203025_T0lFAytr.jpg",
"guidance_scale": 6,
"num_inference_steps": 30,
"aspect_ratio": "16:9"
}'"""
V3 = """curl --location --request POST \
"https://api.wavespeed.ai/api/v3/skywork-ai/skyreels-v3/reference-to-video" \\
--header "Content-Type: application/json" \\
--header "Authorization: Bearer ${WAVESPEED_API_KEY}" \\
--data-raw '{
    "aspect_ratio": "16:9",
    "duration": 5
}'"""
RESULT = """curl --location --request GET "https://api.wavespeed.ai/api/v3/predictions/${requestId}/result" \\
--header "Authorization: Bearer ${WAVESPEED_API_KEY}\""""


def image(name: str) -> str:
    return "data:image/png;base64," + base64.b64encode((DATA / name).read_bytes()).decode()


def curl(system: System, command: str, **variables: str) -> tuple[int, dict[str, Any]]:
    """Runs a printed command against the system; its HTTP status and JSON."""
    text = command.replace("https://api.wavespeed.ai", system.url).replace("curl ", "curl -sw '\\n%{http_code}' ", 1)
    env = {"PATH": "/usr/bin:/bin", "WAVESPEED_API_KEY": "none", **variables}
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, check=True, timeout=60)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def frames(url: str) -> int:
    """Pictures in the video behind a URL, as a player decodes them."""
    with av.open(io.BytesIO(httpx.get(url, trust_env=False).raise_for_status().content)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_wavespeed(system: System) -> None:
    status, refused = curl(system, V3)
    assert (status, refused) == (400, {"code": 400, "message": "Missing required parameters: prompt, images."})
    complete = V3.replace('"aspect_ratio"', f'"prompt": "A ball", "images": ["{image("ball.png")}"], "aspect_ratio"')
    status, created = curl(system, complete.replace('"duration": 5', '"duration": 1'))
    assert (status, created["code"], created["data"]["status"]) == (200, 200, "created")
    seen = []

    def ended() -> dict[str, Any] | None:
        answer = system.client.get(created["data"]["urls"]["get"]).json()["data"]
        seen.append(answer["status"])
        assert bool(answer["outputs"]) == (answer["status"] == "completed")
        return answer if answer["status"] in {"completed", "failed"} else None

    until("the prediction has ended", ended)
    assert set(seen) <= {"created", "processing", "completed"}
    status, answer = curl(system, RESULT, requestId=created["data"]["id"])
    assert (status, answer["message"], answer["data"]["error"]) == (200, "success", "")
    assert answer["data"]["timings"]["inference"] > 0
    (url,) = answer["data"]["outputs"]
    assert frames(url) == 25


def test_wavespeed_knows_v1_and_does_not_serve_it(system: System) -> None:
    status, answer = curl(system, V1)
    assert status == answer["code"] == 404
    assert "not served here; served models: skyreels-v3-r2v" in answer["message"]


def test_runware(system: System) -> None:
    group = {"type": "image", "tag": "@ball", "images": [image("ball.png"), image("triangle.png")]}
    task = {
        "taskType": "videoInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "skywork:skyreels-v3@r2v",
        "positivePrompt": "@ball rolls over a grey floor",
        "resolution": "64p",
        "duration": 1.0,
        "numberResults": 2,
        "includeCost": True,
        "inputs": {"referenceImages": [group]},
    }
    elsewhere = {**task, "taskUUID": str(uuid.uuid4()), "model": "skywork:skyreels@v4", "resolution": "720p"}
    answer = system.client.post("/runware/v1", json=[task, elsewhere, {**elsewhere, "duration": 5}]).json()
    assert [entry["taskUUID"] for entry in answer["data"]] == [task["taskUUID"]]
    assert [entry["parameter"] for entry in answer["errors"]] == ["duration", "model"]
    asked = [{"taskType": "getResponse", "taskUUID": task["taskUUID"]}]

    def done() -> list[dict[str, Any]] | None:
        entries: list[dict[str, Any]] = system.client.post("/runware/v1", json=asked).json()["data"]
        assert len(entries) == 2
        return entries if {entry["status"] for entry in entries} == {"success"} else None

    first, second = until("both results are there", done)
    assert second["seed"] == (first["seed"] + 1) % 2**32
    assert first["videoUUID"] != second["videoUUID"]
    assert (first["cost"], second["cost"]) == (0.04, 0.04)
    assert frames(first["videoURL"]) == frames(second["videoURL"]) == 25


def test_prompts_are_extended_where_the_dialect_says_so_or_the_request(system: System) -> None:
    group = {"type": "image", "tag": "@ball", "images": [image("ball.png")]}
    task = {
        "taskType": "videoInference",
        "taskUUID": str(uuid.uuid4()),
        "model": "skywork:skyreels-v3@r2v",
        "positivePrompt": "@ball rolls",
        "resolution": "64p",
        "duration": 1,
        "inputs": {"referenceImages": [group]},
    }
    plain = {**task, "taskUUID": str(uuid.uuid4()), "settings": {"promptExtend": False}}
    acknowledged = system.client.post("/runware/v1", json=[task, plain]).json()["data"]
    assert [entry["settings"]["promptExtend"] for entry in acknowledged] == [True, False]
    left, extended = system.submit(), system.submit(prompt_extend="true")
    jobs = [system.finish(video["id"]) for video in (left, extended)]
    assert [job["prompt_extend"] for job in jobs] == [False, True]
    assert jobs[0]["prompt_extension"] is None
    made = jobs[1]["prompt_extension"]
    assert made["kept"] is None and made["prompt"] not in {"", jobs[1]["prompt"]}
    assert next(stage["stage"] for stage in jobs[1]["stages"]) == "prompt"
    assert system.digest(left["id"]) != system.digest(extended["id"])  # it is what the denoiser attends to
    again = system.finish(system.submit(prompt_extend="true")["id"])
    assert again["prompt_extension"] == made
    assert system.digest(again["id"]) == system.digest(extended["id"])

    by_prompt = [job for job in system.client.get("/v1/videos").json()["data"] if job["prompt"] == "@ball rolls"]
    (kept,) = [system.finish(job["id"])["prompt_extension"] for job in by_prompt if job["prompt_extend"]]
    assert kept == {"prompt": "@ball rolls", "kept": "The model's answer does not mention @ball."}
    status = system.client.get("/v1/status").json()
    assert status["extender"]["backend"] == "transformers"
