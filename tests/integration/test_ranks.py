"""Ranks as Ray actors, on a bare Ray: sharing, dying, hanging, disagreeing about inputs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from cluster.errors import ConfigError, NonFinite, StageError
from cluster.records import Verdict
from components.device import Placement
from components.vae import Vae
from components.values import Latents
from deployments.group.commands import Commit, Done, Failed, Load, Prepare, Step
from deployments.group.controller import Controller
from deployments.group.local import LocalRanks
from deployments.group.ranks import GroupBroken
from deployments.group.remote import RayRanks
from deployments.leases import Revoked
from loadtest.processes import lives
from tests.integration.system import rank_processes, until
from tests.unit.deployments.group.jobs import Works, config, reached

pytestmark = [pytest.mark.integration, pytest.mark.stress, pytest.mark.asyncio(loop_scope="module")]
LIMITS = {"snapshot_s": 0.05, "step_floor_s": 3.0, "step_timeout_s": 60.0}
LONG = 150  # steps: time to be hurt in
DEATH = {"death", "collective"}  # either Ray or the peer tells first


def works_in(folder: Path, **pool: int) -> Works:
    return Works(config(folder.parent / "tiny-r2v", folder, denoise=LIMITS, **pool))


@pytest.fixture(scope="module")
def place(bare_ray: Path) -> Path:
    return bare_ray / "ranks"


@pytest.fixture(scope="module")
def works(place: Path) -> Works:
    return works_in(place, ranks=2)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def group(works: Works) -> AsyncIterator[Controller]:
    """One group of two ranks for all tests: whoever breaks it finds it rebuilt."""
    controller = works.controller(RayRanks(works.config, works.pool))
    await controller.start()
    yield controller
    assert controller.ailment is None
    await controller.close()


@pytest.fixture
def controller(group: Controller, works: Works) -> Controller:
    """The same, its count of rebuilds at zero."""
    works.metrics.reasons.clear()
    return group


async def alone(works: Works, **changes: int) -> torch.Tensor:
    """The same job at degree 1, in this process."""
    single = works_in(Path(works.config.state_dir))
    controller = single.controller(LocalRanks(single.config, single.pool))
    await controller.start()
    latents_BCTHW = await single.latents(await controller.run(await single.call("alone", **changes)))
    await controller.close()
    return latents_BCTHW


def frames(works: Works, latents_BCTHW: torch.Tensor) -> torch.Tensor:
    vae = Vae.load(Path(works.config.models[0].checkpoint), Placement.of("cpu"))
    return torch.cat([torch.from_numpy(part) for part in vae.decode(Latents(latents_BCTHW))])


@pytest.mark.parametrize("layout", [{"ulysses": 2}, {"ring": 2}])
async def test_two_ranks_make_what_one_makes(place: Path, layout: dict[str, int]) -> None:
    works = works_in(place, ranks=2, **layout)
    controller = works.controller(RayRanks(works.config, works.pool))
    await controller.start()
    shared_BCTHW = await works.latents(await controller.run(await works.call("shared")))
    await controller.close()
    single_BCTHW = await alone(works)
    assert float((shared_BCTHW - single_BCTHW).abs().max()) <= 1e-4
    difference = frames(works, shared_BCTHW).int() - frames(works, single_BCTHW).int()
    assert int(difference.abs().max()) <= 1


@pytest.mark.parametrize(
    ("number", "victim", "reasons"),
    [
        (signal.SIGKILL, 0, {"death", "collective"}),
        (signal.SIGKILL, 1, {"death", "collective"}),
        (signal.SIGSTOP, 1, {"hang"}),
    ],
)
async def test_a_rank_that_dies_or_hangs(
    works: Works, controller: Controller, number: signal.Signals, victim: int, reasons: set[str]
) -> None:
    expected_BCTHW = await works.latents(await controller.run(await works.call("calm", steps=LONG)))
    name = f"hurt-{number}-{victim}"
    call, other = await works.call(name, steps=LONG), await works.call(f"other-{number}-{victim}", steps=LONG)
    tasks = [asyncio.create_task(controller.run(one)) for one in (call, other)]
    await reached(call, LONG // 2)
    old = rank_processes()
    assert len(old) == 2
    step, saved = call.lease.beat.step, works.store.steps(name)
    old[victim].send_signal(number)
    for result in await asyncio.gather(*tasks):
        assert torch.equal(await works.latents(result), expected_BCTHW)
    (reason,) = works.metrics.reasons
    assert reason in reasons
    assert saved
    assert step - saved[-1] < LONG // 4  # one interval is redone, not the whole
    until("the old ranks are gone", lambda: not any(lives(process) for process in old))
    assert len(rank_processes()) == 2


async def test_a_rank_that_dies_while_idle_is_replaced(works: Works, controller: Controller) -> None:
    old = rank_processes()
    old[1].kill()
    async with asyncio.timeout(60):
        while not works.metrics.reasons:
            await asyncio.sleep(0.01)
    await controller.run(await works.call("next"))
    assert works.metrics.reasons == ["death"]


async def test_a_poisoned_job_leaves_the_other_resident_untouched(works: Works, controller: Controller) -> None:
    expected_BCTHW = await works.latents(await controller.run(await works.call("calm")))
    healthy = asyncio.create_task(controller.run(await works.call("healthy")))
    with pytest.raises(NonFinite):
        await controller.run(await works.call("poisoned", poison=True, priority=1))
    assert torch.equal(await works.latents(await healthy), expected_BCTHW)
    assert not works.metrics.reasons


async def test_an_input_that_is_gone_leaves_the_group_serving(works: Works, controller: Controller) -> None:
    gone = await works.call("gone")
    path = works.artifacts.local_path(gone.work.inputs["condition"].uri)
    assert path is not None
    path.unlink()
    with pytest.raises(StageError, match="gone"):
        await controller.run(gone)
    await controller.run(await works.call("next"))
    assert not works.metrics.reasons


async def test_two_residents_interleave_by_priority(works: Works, controller: Controller) -> None:
    slow = await works.call("slow", steps=10 * LONG)
    running = asyncio.create_task(controller.run(slow))
    await reached(slow, 3)
    await controller.run(await works.call("urgent", priority=1))
    assert not running.done()
    slow.lease.judge(Verdict.CANCELLED)
    with pytest.raises(Revoked):
        await running


async def test_a_factor_that_does_not_divide_the_heads_is_refused_in_words(place: Path) -> None:
    works = works_in(place, ranks=3, ulysses=3)
    controller = works.controller(RayRanks(works.config, works.pool))
    with pytest.raises(ConfigError, match="cannot share 4 attention heads evenly"):
        await controller.start()
    await controller.close()


async def test_ranks_refuse_a_number_that_does_not_follow(works: Works) -> None:
    ranks = RayRanks(works.config, works.pool)
    await ranks.start(lambda: None)
    model = works.config.models[0].name
    assert await ranks.call(1, Load(model)) == [Done(), Done()]
    with pytest.raises(GroupBroken, match="got command 1 after 1") as broken:
        await ranks.call(1, Load(model))
    assert broken.value.kind == "protocol"
    await ranks.stop()
    assert not ranks.alive


async def test_one_rank_that_cannot_prepare_does_not_stop_the_others(works: Works) -> None:
    """A file that only one rank fails to read: the others answer, and the job can be dropped on all."""
    ranks = RayRanks(works.config, works.pool)
    await ranks.start(lambda: None)
    await ranks.call(1, Load(works.config.models[0].name))
    good, bad = await works.call("good"), await works.call("bad")
    actors = ranks._actors
    path = works.artifacts.local_path(bad.work.inputs["context"].uri)
    assert path is not None
    first = await actors[0].execute.remote(2, Prepare("job", bad.work))
    path.unlink()
    second = await actors[1].execute.remote(2, Prepare("job", bad.work))
    assert isinstance(first, Done)
    assert isinstance(second, Failed)
    assert not second.broken
    await ranks.call(3, Prepare("good", good.work))
    await ranks.call(4, Commit("good"))
    outcomes = await ranks.call(5, Step("good"))
    assert [outcome.step for outcome in outcomes if isinstance(outcome, Done)] == [1, 1]
    await ranks.stop()


async def test_a_call_to_dead_ranks_breaks_the_group(works: Works) -> None:
    ranks = RayRanks(works.config, works.pool)
    died = asyncio.Event()
    before = {process.pid for process in rank_processes()}
    await ranks.start(died.set)
    next(process for process in rank_processes() if process.pid not in before).kill()
    async with asyncio.timeout(60):
        await died.wait()
    assert not ranks.alive
    with pytest.raises(GroupBroken) as broken:
        await ranks.call(1, Load(works.config.models[0].name))
    assert broken.value.kind == "death"
    await ranks.stop()
