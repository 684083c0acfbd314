"""One rank, real weights, no collectives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import torch

from cluster.errors import Unavailable
from cluster.registry import MODELS
from components.denoiser import Denoiser
from components.tiny import WRITERS
from deployments.call import Call, Result
from deployments.group import commands
from deployments.group.commands import SNAPSHOT_MISMATCH, Command, Done, Failed, Outcome
from deployments.group.member import WrongNumber
from deployments.group.rank import Rank
from tests.unit.deployments.group.jobs import Works, config

MODEL = "skyreels-v3-r2v"


class Numbered:
    """A rank on a thread of its own, and the count of its commands."""

    def __init__(self, works: Works) -> None:
        self.works = works
        self._thread = ThreadPoolExecutor(1)
        self._rank = self._thread.submit(Rank, works.config, works.pool, 0).result()
        self.number = 0

    async def send(self, number: int, command: Command) -> Outcome:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._rank.execute, number, command)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._rank.close)
        self._thread.shutdown()

    async def tell(self, command: Command) -> Outcome:
        self.number += 1
        return await self.send(self.number, command)

    async def done(self, command: Command) -> Done:
        outcome = await self.tell(command)
        assert isinstance(outcome, Done), outcome
        return outcome

    async def failed(self, command: Command) -> Failed:
        outcome = await self.tell(command)
        assert isinstance(outcome, Failed), outcome
        return outcome

    async def latents(self, done: Done) -> torch.Tensor:
        return await self.works.latents(Result(done.handles))

    async def admit(self, job: str, call: Call) -> None:
        await self.done(commands.Prepare(job, call.work))
        await self.done(commands.Commit(job))


@pytest.fixture
async def rank(root: Path, tmp_path: Path) -> AsyncIterator[Numbered]:
    numbered = Numbered(Works(config(root, tmp_path)))
    await numbered.done(commands.Load(MODEL))
    yield numbered
    await numbered.close()


async def test_a_job_from_inputs_to_latents(rank: Numbered) -> None:
    call = await rank.works.call("a", steps=3)
    await rank.admit("a", call)
    assert [(await rank.done(commands.Step("a"))).step for _ in range(3)] == [1, 2, 3]
    done = await rank.done(commands.Finish("a", "jobs/a/work/latents.safetensors"))
    latents_BCTHW = await rank.latents(done)
    assert latents_BCTHW.shape == (1, 16, 7, 8, 14)
    assert bool(torch.isfinite(latents_BCTHW).all())


async def test_a_snapshot_continues_bit_by_bit(rank: Numbered) -> None:
    call = await rank.works.call("a", steps=4)
    await rank.admit("whole", call)
    await rank.done(commands.Step("whole"))
    await rank.done(commands.Step("whole"))
    taken = await rank.done(commands.Snapshot("whole", "jobs/a/work/snapshot.safetensors"))
    assert taken.handle is not None
    assert taken.handle.kind == "Snapshot"
    resumed = await rank.done(commands.Prepare("resumed", replace(call.work, snapshot=taken.handle)))
    assert resumed.step == 2
    await rank.done(commands.Commit("resumed"))
    results = []
    for job in ("whole", "resumed"):
        await rank.done(commands.Step(job))
        await rank.done(commands.Step(job))
        done = await rank.done(commands.Finish(job, f"jobs/a/work/{job}.safetensors"))
        results.append(await rank.latents(done))
    assert torch.equal(*results)


@pytest.mark.parametrize("number", [0, 1, 3])
async def test_a_number_that_does_not_follow_is_refused_and_changes_nothing(rank: Numbered, number: int) -> None:
    call = await rank.works.call("a")
    with pytest.raises(WrongNumber, match=f"got command {number} after 1"):
        await rank.send(number, commands.Prepare("a", call.work))
    assert (await rank.failed(commands.Commit("a"))).code == "generation_failed"  # it was never prepared


async def test_nan_fails_the_job_and_no_other(rank: Numbered) -> None:
    await rank.admit("poisoned", await rank.works.call("poisoned", poison=True))
    await rank.admit("healthy", await rank.works.call("healthy"))
    failed = await rank.failed(commands.Step("poisoned"))
    assert (failed.code, failed.retryable, failed.broken) == ("non_finite", False, False)
    assert (await rank.done(commands.Step("healthy"))).step == 1


async def test_running_out_of_memory_fails_the_job_and_no_other(
    rank: Numbered, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rank.admit("large", await rank.works.call("large"))
    await rank.admit("small", await rank.works.call("small"))
    step = Denoiser.step

    def allocate(self: Denoiser, run: Any) -> None:
        monkeypatch.setattr(Denoiser, "step", step)
        bytearray(2**62)

    monkeypatch.setattr(Denoiser, "step", allocate)
    failed = await rank.failed(commands.Step("large"))
    assert (failed.code, failed.retryable, failed.broken) == ("out_of_memory", False, False)
    assert (await rank.done(commands.Step("small"))).step == 1


async def test_inputs_that_are_gone_or_damaged_fail_the_preparation(rank: Numbered) -> None:
    gone, damaged = await rank.works.call("gone"), await rank.works.call("damaged")
    for call, change in ((gone, Path.unlink), (damaged, lambda path: path.write_bytes(b"no tensors"))):
        path = rank.works.artifacts.local_path(call.work.inputs["condition"].uri)
        assert path is not None
        change(path)
    for call, words, again in ((gone, "gone", False), (damaged, "damaged", True)):
        failed = await rank.failed(commands.Prepare("job", call.work))
        assert words in failed.message
        assert (failed.retryable, failed.broken) == (again, False)


async def test_a_snapshot_that_is_gone_or_damaged_is_refused(rank: Numbered) -> None:
    await rank.admit("a", await rank.works.call("a"))
    for change in (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), Path.unlink):
        handle = (await rank.done(commands.Snapshot("a", "jobs/a/work/snapshot.safetensors"))).handle
        assert handle is not None
        path = rank.works.artifacts.local_path(handle.uri)
        assert path is not None
        change(path)
        again = await rank.works.call("b", snapshot=handle)
        assert (await rank.failed(commands.Prepare("b", again.work))).code == SNAPSHOT_MISMATCH


async def test_storage_that_is_away_is_no_fault_of_the_job(rank: Numbered, monkeypatch: pytest.MonkeyPatch) -> None:
    call = await rank.works.call("a")

    async def away(*_: object) -> None:
        raise Unavailable("The artifact store cannot read: NETWORK_CONNECTION.", retry_after_s=5.0)

    monkeypatch.setattr("deployments.transport.read", away)
    failed = await rank.failed(commands.Prepare("a", call.work))
    assert isinstance(failed.error(), Unavailable)


async def test_a_snapshot_of_another_run_is_told_apart(rank: Numbered) -> None:
    await rank.admit("a", await rank.works.call("a", seed=1))
    taken = await rank.done(commands.Snapshot("a", "jobs/a/work/snapshot.safetensors"))
    other = await rank.works.call("b", seed=2, snapshot=taken.handle)
    assert (await rank.failed(commands.Prepare("b", other.work))).code == SNAPSHOT_MISMATCH


async def test_a_dropped_job_is_unknown_and_dropping_twice_is_fine(rank: Numbered) -> None:
    await rank.admit("a", await rank.works.call("a"))
    for _ in range(2):
        await rank.done(commands.Drop("a"))
    await rank.failed(commands.Step("a"))


async def test_weights_that_are_not_there_fail_the_load(root: Path, tmp_path: Path) -> None:
    numbered = Numbered(Works(config(tmp_path / "nothing", tmp_path)))
    assert "rank 0, Load" in (await numbered.failed(commands.Load(MODEL))).reason
    await numbered.close()


async def test_weights_that_made_room_come_back_from_memory(tmp_path: Path) -> None:
    served = []
    for name in (MODEL, "skyreels-v3-shot"):
        writer = WRITERS[MODELS[name].task]
        writer(tmp_path / name)
        served.append({"name": name, "checkpoint": str(tmp_path / name), "tiny": True})
    works = Works(config(tmp_path / MODEL, tmp_path, models=served, denoise={"host_nbytes": 2**30}))
    numbered = Numbered(works)
    first = await numbered.done(commands.Load(MODEL))
    call = await works.call("a", steps=2)
    made = await latents_of(numbered, "before", call)
    other = await numbered.done(commands.Load("skyreels-v3-shot", instead_of=MODEL))
    assert other.weights != first.weights
    rmtree(tmp_path / MODEL)  # so it cannot be read again
    assert await numbered.done(commands.Load(MODEL, instead_of="skyreels-v3-shot")) == first
    assert torch.equal(await latents_of(numbered, "after", call), made)
    await numbered.close()


async def latents_of(rank: Numbered, job: str, call: Call) -> torch.Tensor:
    await rank.admit(job, call)
    steps = [await rank.done(commands.Step(job)) for _ in range(call.request.steps)]
    assert len({step.weights for step in steps}) == 1
    return await rank.latents(await rank.done(commands.Finish(job, f"jobs/a/work/{job}.safetensors")))
