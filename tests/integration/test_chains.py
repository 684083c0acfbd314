"""Chains through the laptop cluster, two ranks that share each step: each equals the monolith of two ranks frame by
frame, whatever is killed on the way.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from components.media.mux import probe_video
from tests.integration.chains import CHAINS, FRAMES, NAMES, SPOKEN, V1, body, overlap, rows, spans, submit
from tests.integration.conftest import HASTE, laptop, started
from tests.integration.system import System, until
from tests.unit.deployments.line import open_line, portrait, sound_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

CHUNKS = {"extension": range(1, 4), "shot": range(1), "avatar": range(4), "forcing": range(1, 4), "v1": range(1)}
HOSTS = {"condition": "VaeRoom", "decode": "VaeRoom", "text": "TextEncoder", "denoise": "Denoiser"} | {
    name: "TextEncoder" for name in ("audio", "vision")
}
Part = tuple[str, int]  # stage, chunk


@pytest.fixture(scope="module")
def oracle(bare_ray: Path) -> dict[str, str]:
    """What a monolith of two ranks makes of the same requests: hashes of the decoded pictures."""
    return asyncio.run(_oracle(bare_ray))


async def _oracle(folder: Path) -> dict[str, str]:
    named = (f"{{name: {row['name']}, checkpoint: {row['checkpoint']}, tiny: true}}" for row in rows(folder))
    made = {}
    async with open_line(folder / "oracle", f"[{', '.join(named)}]", ranks=2) as line:
        for name in CHAINS:
            response = await line.edge.client.post("/v1/videos", **body(name))
            assert response.status_code == 200, response.text
            job = await line.finish(response.json()["id"])
            made[name] = pictures_digest(await line.content(job["id"]))
    return made


@pytest.fixture(scope="module")
def chains(folder: Path, oracle: dict[str, str]) -> Iterator[System]:
    """The laptop profile with all three chained models."""
    overrides = {**laptop(), **HASTE, "models": rows(folder)}
    overrides["denoise"] = {**HASTE["denoise"], "loaded": len(NAMES)}
    with started(System(folder / "chains", overrides=overrides)) as system:
        yield system


@pytest.fixture(autouse=True)
def whole(chains: System) -> None:
    until("the system is whole", chains.whole)


def pictures_digest(data: bytes) -> str:
    digest = hashlib.sha256()
    with av.open(io.BytesIO(data)) as file:
        for frame in file.decode(video=0):
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()


def segments(system: System, video_id: str) -> int:
    """How many the preview lists; none before it is there."""
    try:
        shown = system.client.get(f"/v1/videos/{video_id}/preview")
    except httpx.TransportError:
        return 0
    return len(re.findall("#EXTINF", shown.text)) if shown.is_success else 0


def check(system: System, name: str, video_id: str, oracle: dict[str, str]) -> dict[str, Any]:
    job = system.finish(video_id, timeout_s=400)
    data = system.content(video_id)
    assert probe_video(data).frames == FRAMES[name]
    assert pictures_digest(data) == oracle[name]
    return job


def attempts(job: dict[str, Any], *states: str) -> dict[Part, int]:
    """How often each stage was begun, of those in these states."""
    return {(s["stage"], s["chunk"]): s["attempt"] for s in job["stages"] if s["state"] in states}


def test_an_extension_survives_a_kill_in_mid_chain_and_is_watched_while_it_grows(
    chains: System, oracle: dict[str, str]
) -> None:
    video_id = submit(chains, "extension")
    first = until("the first roll can be watched", lambda: segments(chains, video_id), 300)
    job = chains.get(video_id)
    assert job is None or job["status"] == "in_progress"
    chains.reach(video_id, lambda job: ("decode", 1) in attempts(job, "done"), "has its first roll", 300)
    chains.replica("VaeRoom").kill()
    done = attempts(check(chains, "extension", video_id, oracle), "done")
    assert segments(chains, video_id) > first
    assert done["decode", 1] == done["denoise", 1] == 1  # what was finished is not done again


@pytest.mark.parametrize("name", ["shot", "avatar", "forcing"])
def test_each_chain_equals_the_monolith(chains: System, oracle: dict[str, str], name: str) -> None:
    video_id = submit(chains, name)
    check(chains, name, video_id, oracle)
    if name == "avatar":
        says_what_its_caller_recorded(chains.content(video_id))


def says_what_its_caller_recorded(data: bytes) -> None:
    with av.open(io.BytesIO(data)) as file:
        streams = file.streams.video[0], file.streams.audio[0]
        picture_s, sound_s = (float((stream.duration or 0) * (stream.time_base or 0)) for stream in streams)
    assert abs(picture_s - sound_s) <= 1 / 25
    (said, rate, _), (heard, heard_rate, codec) = sound_of(SPOKEN), sound_of(data)
    assert (heard_rate, codec) == (rate, "aac")
    assert np.corrcoef(heard[: len(said)], said)[0, 1] > 0.98


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


@pytest.mark.long
def test_two_avatars_and_an_extension_interleave(chains: System, oracle: dict[str, str]) -> None:
    """While a chunk of one chain is decoded, the group denoises another chain's."""
    asked = ["avatar", "avatar", "extension"]
    ids = [submit(chains, name) for name in asked]
    for name, video_id in zip(asked, ids, strict=True):
        check(chains, name, video_id, oracle)
    denoised, decoded = (
        {video_id: spans(chains, video_id, stage) for video_id in ids} for stage in ("denoise", "decode")
    )
    for video_id in ids[:2]:  # the extension came last, so its decodes may wait until nobody else is left
        others = [span for other in ids if other != video_id for span in denoised[other]]
        beside = [window for window in decoded[video_id] if any(overlap(window, other) for other in others)]
        assert beside, f"the group was idle whenever a window of {video_id} was decoded"


MATRIX = [
    *(("extension", stage, None) for stage in ("text", "condition", "denoise", "decode")),
    *(("avatar", stage, None) for stage in ("text", "audio", "vision", "condition", "denoise", "decode")),
    *((name, stage, None) for name in ("shot", "forcing") for stage in ("condition", "denoise", "decode")),
    *((name, "denoise", rank) for name in CHAINS for rank in (0, 1)),
]


@pytest.mark.stress
@pytest.mark.parametrize(("name", "stage", "rank"), MATRIX)
def test_a_chain_survives_the_kill_of_any_stage_at_every_chunk(
    chains: System, oracle: dict[str, str], name: str, stage: str, rank: int | None
) -> None:
    """At each chunk the process that does this stage dies, once the stage has begun; or one rank of the group."""
    video_id = submit(chains, name)
    finished: dict[Part, int] = {}
    job = chains.reach(video_id, lambda job: bool(job["stages"]), "is there")
    parts = [(s["stage"], s["chunk"]) for s in job["stages"] if s["stage"] == stage]
    assert {chunk for _, chunk in parts} <= set(CHUNKS[name]) | {0}
    for part in sorted(parts):
        job = chains.reach(
            video_id, lambda job, part=part: part in attempts(job, "claimed", "done"), f"is at {part}", 400
        )  # type: ignore[misc]
        finished |= attempts(job, "done")
        victim = chains.replica(HOSTS[stage]) if rank is None else until("both ranks live", lambda: pair(chains))[rank]
        victim.kill()
    job = check(chains, name, video_id, oracle)
    done = attempts(job, "done")
    assert {part: done[part] for part in finished} == finished  # what was finished is not done again
    held = sum(host == HOSTS[stage] for host in HOSTS.values())  # that many calls may die with one process
    assert job["attempts"] <= held * len(parts)


def pair(system: System) -> list[Any]:
    ranks = system.ranks()
    return ranks if len(ranks) == 2 else []
