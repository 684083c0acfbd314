"""Other projects' servers are asked in their own words, over HTTP, and their answers are understood."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from loadtest.client.base import Dialect, Sight, State, frames
from loadtest.client.call import Terms, call
from loadtest.client.peers import LightX2V, Sglang, VllmOmni
from loadtest.mixes import Entry, Retries
from loadtest.records import Outcome, Planned
from tests.unit.loadtest.client import peers
from tests.unit.loadtest.synthetic import served

ALL: list[tuple[type[Dialect], Callable[[peers.Jobs], FastAPI]]] = [
    (VllmOmni, peers.vllm_omni),
    (Sglang, peers.sglang),
    (LightX2V, lambda jobs: peers.lightx2v(jobs, most=10)),
]


def request(**changes: Any) -> Planned:
    told: dict[str, Any] = {
        "index": 0, "at_s": 0.0, "tenant": "ada", "slo": "only", "limit_s": 5.0, "model": "skyreels-v3-r2v",
        "resolution": "480P", "seconds": 5.0, "results": 1, "images": 1, "steps": None, "seed": 7, "priority": 0,
        "prompt": "A ball", "cancel_after_s": None,
    }  # fmt: skip
    return Planned(**(told | changes))


def entry(**changes: Any) -> Entry:
    told = {"model": "skyreels-v3-r2v", "resolutions": {"480P": 1}, "seconds": {5: 1}}
    return Entry.model_validate(told | changes)


@asynccontextmanager
async def speaking(kind: type[Dialect], app: FastAPI) -> AsyncIterator[Dialect]:
    with served(app) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            yield kind(http, {"ada": "secret"}, poll_s=0.01)


@pytest.mark.parametrize(("kind", "build"), ALL, ids=lambda value: getattr(value, "name", ""))
async def test_a_job_is_followed_to_its_end(kind: type[Dialect], build: Callable[[peers.Jobs], FastAPI]) -> None:
    jobs = peers.Jobs()
    async with speaking(kind, build(jobs)) as server:
        assert server.unable(entry()) is None
        receipt = await server.create(request())
        assert receipt.job_id is not None, receipt
        sight = Sight()
        await server.follow(receipt.job_id, "ada", sight)
        assert sight.state is State.COMPLETED
        assert await server.fetch(receipt.job_id, "ada", 1) == 100
        await server.cancel(receipt.job_id, "ada")
        assert jobs.stopped == [receipt.job_id]
        failing = await server.create(request(prompt=peers.FAIL))
        assert failing.job_id is not None
        sight = Sight()
        await server.follow(failing.job_id, "ada", sight)
        assert sight.state is State.FAILED
        assert sight.error


async def test_everybody_is_asked_for_the_same_work() -> None:
    asked = {}
    for kind, build in ALL:
        jobs = peers.Jobs()
        async with speaking(kind, build(jobs)) as server:
            await server.create(request())
        asked[kind.name] = next(iter(jobs.asked.values()))
    count = frames(5)
    assert count == 121
    width, height = asked["vllm-omni"]["size"]
    assert (width, height) == (848, 480)
    assert (asked["vllm-omni"]["frames"], asked["vllm-omni"]["fps"], asked["vllm-omni"]["image"]) == (
        count, 24, "image/png",
    )  # fmt: skip
    assert asked["sglang"] == {
        "prompt": "A ball", "size": f"{width}x{height}", "fps": 24, "num_frames": count, "image": "image/png",
    }  # fmt: skip
    assert (asked["lightx2v"]["size"], asked["lightx2v"]["num_frames"]) == ([height, width], count)
    assert asked["lightx2v"]["image_path"].startswith("iVBOR")


async def test_steps_and_voices_reach_those_who_take_them() -> None:
    jobs = peers.Jobs()
    async with speaking(VllmOmni, peers.vllm_omni(jobs)) as server:
        await server.create(request(model="skyreels-v3-avatar", steps=40))
    asked = next(iter(jobs.asked.values()))
    assert (asked["steps"], asked["audio"]) == (40, "data:audio/wav")


@pytest.mark.parametrize(
    ("kind", "changes", "word"),
    [
        (VllmOmni, {"results": {2: 1}}, "one result"),
        (Sglang, {"steps": 30}, "steps"),
        (Sglang, {"model": "skyreels-v3-extend"}, "videos"),
        (LightX2V, {"model": "skyreels-v3-avatar"}, "voices"),
        (LightX2V, {"steps": 30}, "steps"),
    ],
)
def test_what_a_server_cannot_be_asked_is_said(kind: type[Dialect], changes: dict[str, Any], word: str) -> None:
    reason = kind(httpx.AsyncClient()).unable(entry(**changes))
    assert reason is not None
    assert word in reason


async def test_a_full_queue_is_a_refusal_without_advice() -> None:
    async with speaking(LightX2V, peers.lightx2v(peers.Jobs(), most=0)) as server:
        loop = asyncio.get_running_loop()
        terms = Terms(1.0, 1, loop.time(), loop.time() + 5, Retries(), download=False)
        row = await call(request(), server, terms, loop.time())
    assert (row.outcome, row.status, row.refusals, row.retry_after) == (Outcome.REJECTED, 503, 1, False)
