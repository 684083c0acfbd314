"""Bodies of every API are taken by this project's own edge; looks, cancels and what cannot be said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.config import parse
from loadtest.client.base import Sight, State
from loadtest.client.dialects import DIALECTS, check
from loadtest.client.openai import OpenAi, OpenAiEvents, server_timing
from loadtest.client.runware import Runware
from loadtest.client.wavespeed import WaveSpeed
from loadtest.mixes import ScenarioError, load
from tests.unit.deployments.api.conftest import Edge, open_edge
from tests.unit.loadtest.client.test_peers import entry, request

MODELS = ("skyreels-v3-r2v", "skyreels-v3-extend", "skyreels-v3-shot", "skyreels-v3-avatar")
PROFILE = """
profile: test
topology: monolith
state_dir: {state}
models: [{models}]
pools: [{{name: Monolith, stages: [text, audio, vision, condition, source, denoise, decode]}}]
"""


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    models = ", ".join(f"{{name: {name}, checkpoint: none, tiny: true}}" for name in MODELS)
    text = PROFILE.format(state=tmp_path / "state", models=models)
    async with open_edge(tmp_path, config=parse(text, "test")) as edge:
        yield edge


@pytest.mark.parametrize("model", MODELS)
async def test_openai_asks_for_every_model(edge: Edge, model: str) -> None:
    server = OpenAi(edge.client)
    receipt = await server.create(request(model=model, resolution="64P", seconds=2.0, results=2, images=2))
    assert receipt.job_id is not None, receipt
    video = (await edge.client.get(f"/v1/videos/{receipt.job_id}")).json()
    assert (video["model"], video["seconds"], len(video["results"]), video["seed"]) == (model, "2", 2, 7)
    assert (await server.look(receipt.job_id, "ada")).state is State.WAITING
    await server.cancel(receipt.job_id, "ada")
    look = await server.look(receipt.job_id, "ada")
    assert look.state is State.FAILED
    assert look.error is not None
    assert look.error.startswith("cancelled")
    assert look.server_s is not None


async def test_an_event_stream_is_read_to_its_end(edge: Edge) -> None:
    server = OpenAiEvents(edge.client)
    receipt = await server.create(request(resolution="64P", seconds=1.0))
    assert receipt.job_id is not None
    await server.cancel(receipt.job_id, "ada")
    sight = Sight()
    await server.follow(receipt.job_id, "ada", sight)
    assert sight.state is State.FAILED
    assert sight.server_s is not None
    assert sight.spans == ()


async def test_usage_is_read_where_it_is_told(edge: Edge) -> None:
    device = await OpenAi(edge.client).device(("ada",), "2026-01-01T00:00:00Z")
    assert device is not None
    assert (device.useful_s, device.wasted_s) == (0, 0)


@pytest.mark.parametrize("model", MODELS)
async def test_wavespeed_asks_for_every_model(edge: Edge, model: str) -> None:
    server = WaveSpeed(edge.client)
    receipt = await server.create(request(model=model, resolution="64P", seconds=2.0))
    assert receipt.job_id is not None, receipt
    assert (await server.look(receipt.job_id, "ada")).state is State.WAITING
    await edge.client.post(f"/v1/videos/{receipt.job_id}/cancel")
    assert (await server.look(receipt.job_id, "ada")).state is State.FAILED


async def test_runware_asks_for_references(edge: Edge) -> None:
    server = Runware(edge.client)
    receipt = await server.create(request(resolution="64P", seconds=1.0, results=2, images=2))
    assert receipt.job_id is not None, receipt
    assert (await server.look(receipt.job_id, "ada")).state is State.WAITING
    (job,) = (await edge.client.get("/v1/videos")).json()["data"]
    await edge.client.post(f"/v1/videos/{job['id']}/cancel")
    assert (await server.look(receipt.job_id, "ada")).state is State.FAILED


async def test_a_refusal_is_a_receipt(edge: Edge) -> None:
    receipt = await OpenAi(edge.client).create(request(resolution="64P", seconds=99.0))
    assert (receipt.job_id, receipt.status) == (None, 400)
    assert receipt.error is not None
    assert "seconds" in receipt.error


def test_what_an_api_cannot_say_is_refused_before_anything_is_measured(edge: Edge) -> None:
    for name, scenario in (("wavespeed", "r2v"), ("runware", "avatar"), ("sglang", "all-v3"), ("vllm-omni", "r2v")):
        with pytest.raises(ScenarioError, match=rf"mix\.\d cannot be asked of {name}"):
            check(DIALECTS[name](edge.client), load(scenario))
    for name in ("openai", "openai-events"):
        check(DIALECTS[name](edge.client), load("all-v3"))
    assert WaveSpeed(edge.client).unable(entry(resolutions={"480P": 1})) is not None


def test_server_timing_is_in_milliseconds() -> None:
    assert server_timing("queue;dur=12.5, text;dur=1000;desc=x, total") == {"queue": 0.0125, "text": 1.0}
    assert server_timing("") == {}
