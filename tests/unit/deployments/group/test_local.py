"""The controller over one real rank in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import ConfigError, NonFinite, StageError
from cluster.records import Verdict
from components.denoiser import Denoiser
from deployments.call import HandedBack
from deployments.group.commands import Load
from deployments.group.controller import Controller
from deployments.group.local import LocalRanks
from deployments.group.ranks import GroupBroken
from deployments.leases import Revoked
from tests.unit.deployments.group.jobs import Works, config, reached

MODEL = "skyreels-v3-r2v"


@pytest.fixture
def works(root: Path, tmp_path: Path) -> Works:
    return Works(config(root, tmp_path, denoise={"snapshot_s": 1e-6}))


@pytest.fixture
async def controller(works: Works) -> AsyncIterator[Controller]:
    controller = works.controller(LocalRanks(works.config, works.pool))
    await controller.start()
    yield controller
    assert controller.ailment is None
    await controller.close()


async def test_latents_progress_and_snapshots(works: Works, controller: Controller) -> None:
    call = await works.call("a", steps=4)
    latents_BCTHW = await works.latents(await controller.run(call))
    assert bool(torch.isfinite(latents_BCTHW).all())
    assert (call.lease.beat.step, call.lease.beat.steps) == (4, 4)
    assert works.store.steps("a") == [1, 2, 3]
    assert not works.metrics.reasons


async def test_another_attempt_goes_on_from_the_snapshot(works: Works, controller: Controller) -> None:
    whole = await works.latents(await controller.run(await works.call("a", steps=4)))
    (_, snapshot, step) = works.store.saved[1]
    assert step == 2
    again = await works.call("a", steps=4, snapshot=snapshot, epoch=2)
    assert torch.equal(await works.latents(await controller.run(again)), whole)
    assert works.store.steps("a") == [1, 2, 3, 3]


async def test_a_snapshot_that_does_not_fit_starts_the_job_over(works: Works, controller: Controller) -> None:
    expected = await works.latents(await controller.run(await works.call("a", seed=1, steps=3)))
    await controller.run(await works.call("b", seed=2, steps=3))
    foreign = next(snapshot for call, snapshot, _ in works.store.saved if call.ref.job_id == "b")
    again = await works.call("a", seed=1, steps=3, snapshot=foreign, epoch=2)
    assert torch.equal(await works.latents(await controller.run(again)), expected)


async def test_a_poisoned_job_fails_alone(works: Works, controller: Controller) -> None:
    poisoned = controller.run(await works.call("poisoned", poison=True))
    alone = await works.latents(await controller.run(await works.call("alone")))
    healthy = controller.run(await works.call("healthy"))
    failure, handle = await asyncio.gather(poisoned, healthy, return_exceptions=True)
    assert isinstance(failure, NonFinite)
    assert not isinstance(handle, BaseException)
    assert torch.equal(await works.latents(handle), alone)
    assert not works.metrics.reasons


async def test_inputs_that_are_gone_fail_the_job_alone(works: Works, controller: Controller) -> None:
    gone = await works.call("gone")
    path = works.artifacts.local_path(gone.work.inputs["context"].uri)
    assert path is not None
    path.unlink()
    with pytest.raises(StageError, match="gone"):
        await controller.run(gone)
    await controller.run(await works.call("next"))


async def test_an_urgent_job_overtakes_between_steps(works: Works, controller: Controller) -> None:
    slow = await works.call("slow", steps=400)
    running = asyncio.create_task(controller.run(slow))
    await reached(slow, 5)
    await controller.run(await works.call("urgent", priority=1))
    assert slow.lease.beat.step < 400
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("verdict", [Verdict.CANCELLED, Verdict.STALE])
async def test_a_revoked_job_leaves_its_place(works: Works, controller: Controller, verdict: Verdict) -> None:
    calls = [await works.call(name, steps=10_000) for name in ("a", "b")]
    tasks = [asyncio.create_task(controller.run(call)) for call in calls]
    await reached(calls[0], 2)
    for call in calls:
        call.lease.judge(verdict)
    for task in tasks:
        with pytest.raises(Revoked, match=verdict.value):
            await task
    await controller.run(await works.call("next"))


async def test_draining_saves_every_step_and_hands_back(works: Works, controller: Controller) -> None:
    call = await works.call("a", steps=10_000)
    task = asyncio.create_task(controller.run(call))
    await reached(call, 3)
    controller.drain(asyncio.get_running_loop().time())
    with pytest.raises(HandedBack):
        await task
    assert works.store.steps("a")[-1] == call.lease.beat.step
    with pytest.raises(HandedBack):
        await controller.run(await works.call("late"))
    controller.drain(None)
    await controller.run(await works.call("after-all"))


async def test_draining_lets_finish_what_can(works: Works, controller: Controller) -> None:
    call = await works.call("a", steps=60)
    task = asyncio.create_task(controller.run(call))
    await reached(call, 1)
    controller.drain(asyncio.get_running_loop().time() + 3600)
    await task


async def test_a_group_that_cannot_load_does_not_start(tmp_path: Path) -> None:
    works = Works(config(tmp_path / "nothing", tmp_path))
    controller = works.controller(LocalRanks(works.config, works.pool))
    with pytest.raises(ConfigError, match="rank 0, Load"):
        await controller.start()
    await controller.close()


async def test_a_lost_command_breaks_the_group(works: Works) -> None:
    ranks = LocalRanks(works.config, works.pool)
    await ranks.start(lambda: None)
    with pytest.raises(GroupBroken, match="got command 2 after 0"):
        await ranks.call(2, Load(MODEL))
    await ranks.stop()


async def test_a_thread_that_hangs_needs_a_new_process(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = Works(config(root, tmp_path, denoise={"step_floor_s": 0.1, "step_timeout_s": 0.5, "max_rebuilds": 1}))
    controller = works.controller(LocalRanks(works.config, works.pool))
    await controller.start()
    release = threading.Event()
    step = Denoiser.step

    def hang(self: Denoiser, run: Any) -> None:
        release.wait()
        step(self, run)

    monkeypatch.setattr(Denoiser, "step", hang)
    with pytest.raises(HandedBack, match="thread hangs"):
        await controller.run(await works.call("a"))
    assert controller.ailment is not None
    assert works.metrics.reasons == ["hang"]
    release.set()
    await controller.close()


async def test_two_results_of_one_job_share_a_group_and_nothing_else(works: Works, controller: Controller) -> None:
    both = [await works.call("a", steps=4, n=2, seed=2**32 - 1, result=result) for result in (0, 1)]
    found = [await works.latents(done) for done in await asyncio.gather(*map(controller.run, both))]
    alone = [await controller.run(await works.call(f"{seed}", steps=4, seed=seed)) for seed in (2**32 - 1, 0)]
    assert [bool(torch.equal(a, await works.latents(b))) for a, b in zip(found, alone, strict=True)] == [True, True]
    assert not torch.equal(found[0], found[1])
    of_job = [(call.ref.result, snapshot.uri) for call, snapshot, _ in works.store.saved if call.ref.job_id == "a"]
    assert sorted(result for result, _ in of_job) == [0, 0, 0, 1, 1, 1]
    assert len({uri for _, uri in of_job}) == 6
