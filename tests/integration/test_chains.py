"""Every other model than reference-to-video through the laptop cluster: each equals the monolith frame by frame; chains
go on after a kill.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from cluster.registry import MODELS
from components.media.mux import probe_video
from components.tiny import WRITERS
from tests.integration.conftest import HASTE, laptop
from tests.integration.system import System, until
from tests.unit.deployments.line import film, moving, open_line, portrait, speech

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NAMES = ("skyreels-v3-extend", "skyreels-v3-shot", "skyreels-v3-avatar", "skyreels-v1-t2v", "skyreels-v1-i2v")
EXTENSION = {"model": "skyreels-v3-extend", "prompt": "the ball rolls on", "seconds": "11", "seed": "7"}
SHOT = {"model": "skyreels-v3-shot", "prompt": "[CUT_IN] the ball from above", "seconds": "2", "seed": "8"}
AVATAR = {"model": "skyreels-v3-avatar", "prompt": "a ball speaks", "seed": "9"}
V1 = {"model": "skyreels-v1-i2v", "prompt": "a ball rolls", "seed": "10", "steps": "2"}
SOURCE = ("video", ("source.mp4", film(moving(30)), "video/mp4"))
FACE = ("images", ("face.png", portrait(), "image/png"))
VOICE = ("audio", ("voice.wav", speech(6.0), "audio/wav"))  # 150 frames: three windows
Form = tuple[dict[str, str], list[Any]]
CHAINS: dict[str, Form] = {
    "extension": (EXTENSION, [SOURCE]),
    "shot": (SHOT, [SOURCE]),
    "avatar": (AVATAR, [FACE, VOICE]),
    "v1": (V1, [FACE]),
}
FRAMES = {"extension": 132 + 132 + 4, "shot": 49, "avatar": 150, "v1": 25}


def rows(folder: Path) -> list[dict[str, Any]]:
    """Models of a configuration, their checkpoints written."""
    found = []
    for name in NAMES:
        writer = WRITERS[MODELS[name].task]
        writer(folder / writer.__name__)
        found.append({"name": name, "checkpoint": str(folder / writer.__name__), "tiny": True})
    return found


@pytest.fixture(scope="module")
def chains(folder: Path) -> Iterator[System]:
    """The laptop profile with one rank, so that it computes as the monolith does; all three chained models."""
    overrides = {**laptop({"ranks": 1}), **HASTE, "models": rows(folder)}
    overrides["denoise"] = {**HASTE["denoise"], "loaded": len(NAMES)}
    with System(folder / "chains", overrides=overrides) as system:
        yield system


@pytest.fixture(scope="module")
def oracle(folder: Path) -> dict[str, str]:
    """What the monolith makes of the same requests: hashes of the decoded pictures."""
    return asyncio.run(_oracle(folder))


async def _oracle(folder: Path) -> dict[str, str]:
    named = (f"{{name: {row['name']}, checkpoint: {row['checkpoint']}, tiny: true}}" for row in rows(folder))
    made = {}
    async with open_line(folder / "oracle", f"[{', '.join(named)}]") as line:
        for name, (fields, files) in CHAINS.items():
            response = await line.edge.client.post("/v1/videos", data=fields, files=files)
            assert response.status_code == 200, response.text
            job = await line.finish(response.json()["id"])
            made[name] = pictures_digest(await line.content(job["id"]))
    return made


def pictures_digest(data: bytes) -> str:
    digest = hashlib.sha256()
    with av.open(io.BytesIO(data)) as file:
        for frame in file.decode(video=0):
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


def submit(system: System, name: str) -> str:
    fields, files = CHAINS[name]
    response = system.client.post("/v1/videos", data=fields, files=files)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def segments(system: System, video_id: str) -> int:
    """How many the preview lists; none before it is there."""
    try:
        shown = system.client.get(f"/v1/videos/{video_id}/preview")
    except httpx.TransportError:
        return 0
    return len(re.findall("#EXTINF", shown.text)) if shown.is_success else 0


def check(system: System, name: str, video_id: str, oracle: dict[str, str]) -> None:
    system.finish(video_id, timeout_s=400)
    data = system.content(video_id)
    assert probe_video(data).frames == FRAMES[name]
    assert pictures_digest(data) == oracle[name]


def test_an_extension_survives_a_kill_in_mid_chain_and_is_watched_while_it_grows(
    chains: System, oracle: dict[str, str]
) -> None:
    video_id = submit(chains, "extension")
    first = until("the first roll can be watched", lambda: segments(chains, video_id), 300)
    job = chains.get(video_id)
    assert job is None or job["status"] == "in_progress"

    def second(job: dict[str, Any]) -> bool:
        states = {(stage["stage"], stage["chunk"]): stage["state"] for stage in job["stages"]}
        return states["decode", 1] == "done"

    chains.reach(video_id, second, "has its first roll", 300)
    chains.replica("VaeRoom").kill()
    check(chains, "extension", video_id, oracle)
    assert segments(chains, video_id) > first
    job = chains.finish(video_id)
    attempts = {(stage["stage"], stage["chunk"]): stage["attempt"] for stage in job["stages"]}
    assert attempts["decode", 1] == attempts["denoise", 1] == 1  # what was finished is not done again


@pytest.mark.parametrize("name", ["shot", "avatar"])
def test_each_chain_equals_the_monolith(chains: System, oracle: dict[str, str], name: str) -> None:
    check(chains, name, submit(chains, name), oracle)


def test_v1_under_wavespeeds_path_equals_the_monolith_and_makes_videos_of_text(
    chains: System, oracle: dict[str, str]
) -> None:
    image = "data:image/png;base64," + base64.b64encode(portrait()).decode()
    asked = {"prompt": V1["prompt"], "image": image, "seed": int(V1["seed"]), "num_inference_steps": 2}
    answer = chains.client.post("/api/v3/wavespeed-ai/SkyReels-V1", json=asked).json()
    text = {"model": "skyreels-v1-t2v", "prompt": "a ball", "steps": 2}
    other = chains.client.post("/v1/videos", json=text).json()
    check(chains, "v1", answer["data"]["id"], oracle)
    found = chains.client.get(answer["data"]["urls"]["get"]).json()["data"]
    assert (found["status"], found["model"]) == ("completed", "wavespeed-ai/SkyReels-V1")
    (url,) = found["outputs"]
    assert probe_video(httpx.get(url, trust_env=False, follow_redirects=True).content).frames == FRAMES["v1"]
    chains.finish(other["id"])
    assert probe_video(chains.content(other["id"])).frames == FRAMES["v1"]


def test_two_avatars_and_an_extension_interleave(chains: System, oracle: dict[str, str]) -> None:
    """The group denoises one chain's chunk while another one's is decoded."""
    asked = ["avatar", "avatar", "extension"]
    ids = [submit(chains, name) for name in asked]
    for name, video_id in zip(asked, ids, strict=True):
        check(chains, name, video_id, oracle)
    denoised = {video_id: spans(chains, video_id) for video_id in ids}
    between = [(done, claimed) for found in denoised.values() for (_, done), (claimed, _) in pairwise(found)]
    assert any(done < claimed < again for done, again in between for found in denoised.values() for claimed, _ in found)


def spans(system: System, video_id: str) -> list[tuple[str, str]]:
    """From when to when each chunk was denoised."""
    query = "SELECT claimed_at, done_at FROM stages WHERE job_id = ? AND stage = 'denoise' ORDER BY chunk"
    with closing(sqlite3.connect(system.folder / "state" / "jobs.db")) as database:
        return list(database.execute(query, (video_id,)).fetchall())


@pytest.mark.stress
@pytest.mark.parametrize("deployment", ["TextEncoder", "VaeRoom", "Denoiser"])
@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("name", ["extension", "avatar"])
def test_a_chain_survives_the_kill_of_any_stage_at_any_chunk(
    chains: System, oracle: dict[str, str], name: str, chunk: int, deployment: str
) -> None:
    video_id = submit(chains, name)

    def there(job: dict[str, Any]) -> bool:
        return any(s["chunk"] == chunk and s["stage"] == "denoise" and s["state"] != "blocked" for s in job["stages"])

    chains.reach(video_id, there, f"is at chunk {chunk}", 400)
    chains.replica(deployment).kill()
    check(chains, name, video_id, oracle)
