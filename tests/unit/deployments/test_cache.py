"""The cache of encodings: what hits, what never does, and what is lost when it is full (nothing)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import torch

from cluster.config import Cache
from components.values import Frames, PromptText, TextContext
from deployments import blobs
from deployments.artifacts import CACHE, ArtifactStore
from deployments.cache import EncodingCache, key_of
from deployments.cache_sweeper import CacheSweeper
from deployments.telemetry import logger

KEY = key_of("text", "w", "t", {"text": "a ball"})


def rows(seed: int = 0, length: int = 16) -> TextContext:
    generator = torch.Generator().manual_seed(seed)
    prompt_BLD = torch.randn(1, length, 8, generator=generator).to(torch.bfloat16)
    return TextContext(prompt_BLD, prompt_BLD[:, :0].clone())


class Encoder:
    """Counts its work; `fails` times it raises instead."""

    def __init__(self, value: TextContext | None = None, fails: int = 0) -> None:
        self.value = value or rows()
        self.fails = fails
        self.runs = 0

    async def __call__(self) -> TextContext:
        self.runs += 1
        await asyncio.sleep(0.01)
        if self.runs <= self.fails:
            raise RuntimeError("the encoder broke")
        return self.value


def blob(value: object) -> bytes:
    assert isinstance(value, TextContext)
    return b"".join(bytes(piece) for piece in blobs.pieces(value.tensors()))


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
def fresh(artifacts: ArtifactStore) -> Callable[..., EncodingCache]:
    """A replica's cache over the same store."""
    return lambda **settings: EncodingCache(artifacts, Cache(**settings), logger())


Fresh = Callable[..., EncodingCache]


async def never() -> TextContext:
    raise AssertionError("was encoded again")


async def test_a_hit_is_the_same_bytes_in_this_process_and_in_another(fresh: Fresh) -> None:
    first, encoder = fresh(), Encoder()
    made, found = await first.recall(KEY, encoder)
    assert found == "nothing"
    again, found = await first.recall(KEY, never)
    assert (found, blob(again)) == ("memory", blob(made))
    await first.settle()
    elsewhere, found = await fresh().recall(KEY, never)
    assert (found, blob(elsewhere)) == ("store", blob(made))
    assert encoder.runs == 1


async def test_fifty_equal_calls_at_once_encode_once(fresh: Fresh) -> None:
    cache, encoder = fresh(), Encoder()
    answers = await asyncio.gather(*(cache.recall(KEY, encoder) for _ in range(50)))
    assert encoder.runs == 1
    assert {blob(value) for value, _ in answers} == {blob(encoder.value)}
    assert sorted(found for _, found in answers) == ["flight"] * 49 + ["nothing"]


async def test_who_waits_for_one_that_fails_makes_it_himself(fresh: Fresh) -> None:
    cache, encoder = fresh(), Encoder(fails=1)
    answers = await asyncio.gather(*(cache.recall(KEY, encoder) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, RuntimeError) for answer in answers) == 1
    assert encoder.runs == 2


async def test_who_is_cancelled_does_not_take_the_others_along(fresh: Fresh) -> None:
    cache, encoder = fresh(), Encoder()
    leader, follower = (asyncio.create_task(cache.recall(KEY, encoder)) for _ in range(2))
    await asyncio.sleep(0)
    leader.cancel()
    assert blob((await follower)[0]) == blob(encoder.value)


@pytest.mark.parametrize(
    "other",
    [
        key_of("text", "w", "another tenant", {"text": "a ball"}),
        key_of("text", "w", None, {"text": "a ball"}),
        key_of("text", "other weights", "t", {"text": "a ball"}),
        key_of("vision", "w", "t", {"text": "a ball"}),
        key_of("text", "w", "t", {"text": "a ball "}),
    ],
)
async def test_no_other_input_tenant_stage_or_weights_hit(fresh: Fresh, other: str) -> None:
    cache = fresh()
    await cache.recall(KEY, Encoder())
    await cache.settle()
    encoder = Encoder(rows(1))
    value, found = await cache.recall(other, encoder)
    assert (found, blob(value)) == ("nothing", blob(encoder.value))


@pytest.mark.parametrize("damage", ["flip", "cut", "other", "empty", "kind"])
async def test_a_damaged_entry_is_a_miss_and_is_replaced(fresh: Fresh, artifacts: ArtifactStore, damage: str) -> None:
    first, encoder = fresh(), Encoder()
    await first.recall(KEY, encoder)
    await first.settle()
    (entry,) = await artifacts.entries(CACHE)
    path = artifacts.local_path(artifacts.uri(entry.key))
    assert path is not None
    data = path.read_bytes()
    kinds = data.replace(b"TextContext", b"Frames", 1)
    path.write_bytes(
        {"flip": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-9], "other": b"x", "empty": b"", "kind": kinds}[
            damage
        ]
    )
    second = fresh()
    value, found = await second.recall(KEY, encoder)
    assert (found, encoder.runs, blob(value)) == ("nothing", 2, blob(encoder.value))
    await second.settle()
    assert path.read_bytes() == data


async def test_memory_is_bounded_and_the_least_used_goes_first(fresh: Fresh) -> None:
    size = blobs.size(rows())
    cache = fresh(memory_nbytes=4 * size, store_nbytes=0)
    for number in range(4):
        await cache.recall(f"{number:064}", Encoder())
    await cache.recall(f"{0:064}", never)
    await cache.recall(f"{4:064}", Encoder())
    assert cache.nbytes == 4 * size
    assert (await cache.recall(f"{0:064}", never))[1] == "memory"
    assert (await cache.recall(f"{1:064}", Encoder()))[1] == "nothing"


async def test_what_would_push_out_much_of_a_tier_is_not_kept(fresh: Fresh, artifacts: ArtifactStore) -> None:
    size = blobs.size(rows())
    cache = fresh(memory_nbytes=3 * size, store_nbytes=3 * size)
    await cache.recall(KEY, Encoder())
    await cache.settle()
    assert (cache.nbytes, await artifacts.entries(CACHE)) == (0, [])


async def test_switched_off_nothing_is_kept(fresh: Fresh, artifacts: ArtifactStore) -> None:
    cache, encoder = fresh(enabled=False), Encoder()
    for _ in range(2):
        await cache.recall(KEY, encoder)
    await cache.settle()
    assert (encoder.runs, cache.nbytes, await artifacts.entries(CACHE)) == (2, 0, [])


async def test_eviction_under_load_loses_nothing(fresh: Fresh, artifacts: ArtifactStore) -> None:
    """Replicas with tiny memories and a sweeper that removes all the time: every answer is the right one."""
    size = blobs.size(rows())
    bounds = {"memory_nbytes": 4 * size, "store_nbytes": 6 * size}
    replicas = [fresh(**bounds) for _ in range(2)]
    sweeper = CacheSweeper(artifacts, Cache(**bounds), logger())
    found: list[str] = []
    dice = random.Random(7)

    def encoded(number: int) -> Callable[[], Awaitable[TextContext]]:
        return Encoder(rows(number))

    async def ask(number: int, cache: EncodingCache) -> None:
        value, where = await cache.recall(f"{number:064}", encoded(number))
        assert blob(value) == blob(rows(number))
        found.append(where)

    evicted = 0
    for _ in range(20):
        await asyncio.gather(*(ask(dice.randrange(12), dice.choice(replicas)) for _ in range(20)))
        swept = await sweeper.sweep()
        assert swept is not None and swept.nbytes <= bounds["store_nbytes"]
        evicted += swept.evicted
    for cache in replicas:
        await cache.settle()
    assert len(found) == 400 and evicted > 0
    assert {"nothing", "store"} <= set(found)


async def test_the_sweep_removes_what_is_old_and_what_is_too_much(fresh: Fresh, artifacts: ArtifactStore) -> None:
    cache = fresh()
    for number in range(3):
        await cache.recall(f"{number:064}", Encoder())
    await cache.settle()
    size = (await artifacts.entries(CACHE))[0].nbytes
    assert (await CacheSweeper(artifacts, Cache(store_nbytes=2 * size), logger()).sweep()) == (2 * size, 1)
    await artifacts.put_bytes("jobs/video_1/work/x", b"of a job")
    await asyncio.sleep(0.02)
    assert (await CacheSweeper(artifacts, Cache(keep_s=0.01), logger()).sweep()) == (0, 2)
    assert await artifacts.keys("jobs") == ["jobs/video_1/work/x"]


async def test_values_of_every_dtype_come_back(fresh: Fresh) -> None:
    frames = Frames(torch.arange(24, dtype=torch.uint8).reshape(1, 2, 4, 3))

    async def made() -> Frames:
        return frames

    first = fresh()
    await first.recall(KEY, made)
    await first.settle()
    value, _ = await fresh().recall(KEY, never)
    assert isinstance(value, Frames)
    assert torch.equal(value.frames_FYXC, frames.frames_FYXC)


@pytest.mark.parametrize("text", ["", "a ball", "雪 falls\n"])
async def test_texts_come_back(fresh: Fresh, text: str) -> None:
    async def made() -> PromptText:
        return PromptText.of(text)

    first = fresh()
    await first.recall(KEY, made)
    await first.settle()
    value, found = await fresh().recall(KEY, never)
    assert isinstance(value, PromptText)
    assert (found, value.text) == ("store", text)
