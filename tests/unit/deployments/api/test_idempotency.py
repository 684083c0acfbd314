"""Idempotency-Key, limits and costs at the edge."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.records import Dialect
from deployments.api.idempotency import IdempotencyKey
from tests.unit.cluster.store.play import Play
from tests.unit.deployments.api.conftest import Edge, open_edge
from tests.unit.deployments.api.test_videos import body, png

KEY = {"Idempotency-Key": "order-17"}


async def post(edge: Edge, **fields: Any) -> httpx.Response:
    return await edge.client.post("/v1/videos", json=body(**fields), headers=KEY)


async def test_a_repeated_request_is_answered_with_its_job(edge: Edge) -> None:
    first = await post(edge, seed=-1)
    files = edge.files()
    again = await post(edge, seed=-1)
    assert again.json() == first.json()
    assert edge.files() == files
    assert len((await edge.client.get("/v1/videos")).json()["data"]) == 1
    assert (await edge.client.post("/v1/videos", json=body(seed=-1))).json()["id"] != first.json()["id"]


async def test_the_order_of_fields_does_not_matter(edge: Edge) -> None:
    first = (await post(edge, seed=1, aspect_ratio="16:9")).json()["id"]
    turned = dict(reversed(body(seed=1, aspect_ratio="16:9").items()))
    assert (await edge.client.post("/v1/videos", json=turned, headers=KEY)).json()["id"] == first


async def test_another_request_is_refused_in_one_sentence(edge: Edge) -> None:
    await post(edge)
    files = edge.files()
    response = await post(edge, seed=3)
    assert response.status_code == 409
    assert response.json()["error"]["message"] == "This Idempotency-Key was used for another request; use a new key."
    assert edge.files() == files


async def test_forms_are_compared_by_their_files(edge: Edge) -> None:
    async def form(data: bytes) -> httpx.Response:
        files = [("images", ("a.png", data))]
        return await edge.client.post("/v1/videos", data={"prompt": "A ball"}, files=files, headers=KEY)

    first = await form(png())
    assert (await form(png())).json()["id"] == first.json()["id"]
    assert (await form(png(48, 27))).status_code == 409


async def test_a_race_stores_one_job_and_its_files_only(edge: Edge) -> None:
    answers = await asyncio.gather(*(post(edge) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(edge.files()) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tinside"])
async def test_a_key_that_is_none_is_refused(edge: Edge, key: str) -> None:
    response = await edge.client.post("/v1/videos", json=body(), headers={"Idempotency-Key": key})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert not edge.files()


def test_the_fingerprint_is_of_dialect_body_files_and_part() -> None:
    key = IdempotencyKey("k")
    seen = {
        key.of(Dialect.OPENAI, {"a": 1}),
        key.of(Dialect.RUNWARE, {"a": 1}),
        key.of(Dialect.OPENAI, {"a": 2}),
        key.of(Dialect.OPENAI, {"a": 1}, [("images", b"x")]),
        key.of(Dialect.OPENAI, {"a": 1}, [("images", b"y")]),
        key.of(Dialect.OPENAI, {"a": 1}, part="task"),
    }
    assert len(seen) == 6
    assert key.of(Dialect.OPENAI, {"a": 1, "b": 2}) == key.of(Dialect.OPENAI, {"b": 2, "a": 1})
    assert IdempotencyKey().of(Dialect.OPENAI, {}) is None


async def test_a_limit_is_429_with_a_wait_and_leaves_nothing(tmp_path: Path) -> None:
    limits = "limits: {default: {queued: 9, requests_per_minute: 9}, tenants: {default: {queued: 1}}}\n"
    async with open_edge(tmp_path, more=limits) as edge:
        assert (await edge.client.post("/v1/videos", json=body())).status_code == 200
        files = edge.files()
        refused = await edge.client.post("/v1/videos", json=body())
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) >= 1
        assert edge.files() == files


async def test_the_cost_is_told_when_asked_for(tmp_path: Path) -> None:
    prices = "prices: {skyreels-v3-r2v: [{per_s_usd: 0.07, resolution: 64P}, {per_s_usd: 1}]}\n"
    async with open_edge(tmp_path, more=prices) as edge:
        plain = (await edge.client.post("/v1/videos", json=body())).json()
        asked = (await edge.client.post("/v1/videos", json=body(include_cost=True, seconds=3))).json()
        assert (plain["cost_usd"], asked["cost_usd"]) == (None, "0")
        leadership = await edge.store.lead("s", 600)
        assert leadership is not None
        play = Play(edge.store, leadership)
        for stage in ("text", "condition", "denoise", "decode"):
            await play.finish(stage, asked["id"])
        assert (await edge.client.get(f"/v1/videos/{asked['id']}")).json()["cost_usd"] == "0.21"
        report = (await edge.client.get("/v1/usage")).json()
        assert (report["charged_usd"], report["videos"], report["video_s"]) == ("0.21", 1, 3)
