"""What the controller orders, in which order, and what it does when ranks misbehave; the ranks are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.errors import OutOfMemory, StageError, StaleEpoch, Unavailable, WorkerLost
from cluster.records import Handle, Verdict
from deployments import leases
from deployments.call import HandedBack, Result
from deployments.group import commands
from deployments.group.commands import Command, Done, Failed, Outcome
from deployments.group.controller import Controller
from deployments.group.ranks import GroupBroken
from deployments.leases import Revoked
from tests.unit.deployments.group.jobs import Works, config, reached

Answer = Callable[[int], Outcome]  # rank → its answer
HANG = "hang"


class Scripted:
    """Two ranks that keep the protocol and misbehave on request."""

    def __init__(self) -> None:
        self.log: list[Command] = []
        self.starts = 0
        self.unstartable = 0  # how many starts will fail
        self.steps: dict[str, int] = {}
        self.script: list[tuple[Callable[[Command], bool], GroupBroken | str | Answer]] = []
        self.alive = False
        self._next = 1
        self._on_death: Callable[[], None] = lambda: None

    def on(self, match: Callable[[Command], bool], what: GroupBroken | str | Answer) -> None:
        """The next command that matches gets this."""
        self.script.append((match, what))

    async def start(self, on_death: Callable[[], None]) -> None:
        self.starts += 1
        if self.unstartable:
            self.unstartable -= 1
            raise GroupBroken("start", "no such device")
        self.steps.clear()
        self.alive, self._next, self._on_death = True, 1, on_death

    async def stop(self) -> None:
        self.alive = False

    def die(self) -> None:
        self.alive = False
        self._on_death()

    async def call(self, number: int, command: Command) -> Sequence[Outcome]:
        assert self.alive
        assert number == self._next
        self._next += 1
        self.log.append(command)
        await asyncio.sleep(0)
        for entry in self.script:
            match, what = entry
            if match(command):
                self.script.remove(entry)
                if what == HANG:
                    await asyncio.Event().wait()
                if isinstance(what, GroupBroken):
                    raise what
                assert callable(what)
                return [what(rank) for rank in range(2)]
        return [self._done(command, rank) for rank in range(2)]

    def _done(self, command: Command, rank: int) -> Done:
        if isinstance(command, commands.Prepare):
            saved = command.work.snapshot
            step = 0 if saved is None else int(saved.key.rpartition("-")[2].partition(".")[0])
            if rank == 0:
                self.steps[command.job] = step
        if isinstance(command, commands.Step) and rank == 0:
            self.steps[command.job] += 1
        if isinstance(command, commands.Load | commands.Drop):
            return Done()
        if rank == 0 and isinstance(command, commands.Snapshot | commands.Finish):
            written = Handle(command.key, "Snapshot", f"file:///{command.key}", 8)
            if isinstance(command, commands.Finish):
                return Done(self.steps[command.job], handles={"latents": written})
            return Done(self.steps[command.job], written)
        return Done(self.steps[command.job])

    def told(self, kind: type[Command]) -> list[str]:
        return [command.job.partition("/")[0] for command in self.log if isinstance(command, kind)]  # type: ignore[union-attr]


def is_step(job: str, after: int = 0) -> Callable[[Command], bool]:
    """The step of a job that comes after so many others of it."""
    seen = iter(range(10_000))
    return lambda command: (
        isinstance(command, commands.Step) and command.job.startswith(f"{job}/") and next(seen) == after
    )


def is_kind(kind: type[Command]) -> Callable[[Command], bool]:
    return lambda command: isinstance(command, kind)


@pytest.fixture
def works(tmp_path: Path) -> Works:
    limits = {"snapshot_s": 1e-9, "step_floor_s": 0.05, "step_timeout_s": 0.3, "max_rebuilds": 2}
    return Works(config(tmp_path / "weights", tmp_path, denoise=limits))


@pytest.fixture
def ranks() -> Scripted:
    return Scripted()


@pytest.fixture
async def controller(works: Works, ranks: Scripted):  # type: ignore[no-untyped-def]
    controller = works.controller(ranks)
    await controller.start()
    yield controller
    await controller.close()
    assert not ranks.alive


async def run(works: Works, controller: Controller, *jobs: str) -> list[Result | BaseException]:
    calls = [await works.call(job) for job in jobs]
    return await asyncio.gather(*(controller.run(call) for call in calls), return_exceptions=True)


def all_done(results: list[Result | BaseException]) -> bool:
    return all(isinstance(result, Result) for result in results)


async def test_the_order_of_one_job(works: Works, ranks: Scripted, controller: Controller) -> None:
    assert all_done(await run(works, controller, "a"))
    await run(works, controller, "next")  # its place has been given back before
    kinds = [type(command).__name__ for command in ranks.log]
    steps = ["Step", "Snapshot"] * 7 + ["Step", "Finish", "Drop"]
    assert kinds[: len(steps) + 3] == ["Load", "Prepare", "Commit", *steps]


async def test_places_are_few_and_the_urgent_step_first(works: Works, ranks: Scripted, controller: Controller) -> None:
    priorities = {"low": 0, "high": 1, "third": 5}
    calls = [await works.call(job, priority=priority) for job, priority in priorities.items()]
    await asyncio.gather(*(controller.run(call) for call in calls))
    # The third waits outside until one of the two residents is done, then overtakes the other.
    assert ranks.told(commands.Prepare) == ["low", "high", "third"]
    assert ranks.told(commands.Finish) == ["high", "third", "low"]
    assert ranks.told(commands.Step) == ["high"] * 8 + ["third"] * 8 + ["low"] * 8


async def test_models_take_each_others_place_when_nobody_uses_them(tmp_path: Path, ranks: Scripted) -> None:
    first, second = "skyreels-v3-r2v", "skyreels-v3-shot"
    served = [{"name": name, "checkpoint": str(tmp_path / "weights"), "tiny": True} for name in (first, second)]
    works = Works(config(tmp_path / "weights", tmp_path, models=served))
    controller = works.controller(ranks)
    await controller.start()
    for model in (first, second, second, first):
        await controller.run(await works.call("job", model=model))
    loads = [command for command in ranks.log if isinstance(command, commands.Load)]
    assert loads == [commands.Load(first), commands.Load(second, first), commands.Load(first, second)]
    assert works.metrics.loads == 2
    assert works.loaded == [[first], [first], [second], [second], [first]]
    await controller.close()


async def test_equals_run_by_deadline_then_age(works: Works, ranks: Scripted) -> None:
    controller = works.controller(ranks, residents=4)
    await controller.start()
    calls = [
        await works.call("young"),
        await works.call("old", age_s=10),
        await works.call("later", due_s=20),
        await works.call("soon", due_s=10),
    ]
    await asyncio.gather(*(controller.run(call) for call in calls))
    assert ranks.told(commands.Finish) == ["soon", "later", "old", "young"]
    await controller.close()


async def test_what_one_rank_refuses_all_forget(works: Works, ranks: Scripted, controller: Controller) -> None:
    refusal = Failed("generation_failed", "The stored Condition is gone.", "rank 1: gone", retryable=False)
    ranks.on(is_kind(commands.Prepare), lambda rank: refusal if rank == 1 else Done())
    (result, *_) = await run(works, controller, "refused", "other")
    assert isinstance(result, StageError)
    assert str(result) == "The stored Condition is gone."
    assert ranks.told(commands.Drop)[0] == "refused"
    assert ranks.told(commands.Commit) == ["other"]
    assert ranks.starts == 1


@pytest.mark.parametrize(
    "trouble",
    [
        GroupBroken("death", "a rank died"),
        GroupBroken("collective", "x", Failed("generation_failed", "m", "r", retryable=True, broken=True)),
        HANG,
        Done,  # each with its own number of steps: they disagree
        lambda rank: Done(6, weights="another model's"),
        lambda rank: Done(6, weights="another model's" if rank else ""),
    ],
    ids=["death", "collective", "hang", "disagreement", "wrong weights", "wrong weights on one rank"],
)
async def test_whatever_breaks_the_group_it_is_rebuilt_and_residents_resume(
    works: Works, ranks: Scripted, controller: Controller, trouble: GroupBroken | str | Answer
) -> None:
    ranks.on(is_step("a", after=5), trouble)
    assert all_done(await run(works, controller, "a", "b"))
    assert ranks.starts == 2
    assert len(works.metrics.reasons) == 1
    # Both were there, so both are prepared again; "a" goes on from its fifth step.
    assert ranks.told(commands.Prepare) == ["a", "b", "a", "b"]
    assert ranks.told(commands.Step).count("a") == 9
    assert works.store.steps("a") == [1, 2, 3, 4, 5, 6, 7]


async def test_a_death_in_idleness_is_repaired_at_once(works: Works, ranks: Scripted, controller: Controller) -> None:
    ranks.die()
    async with asyncio.timeout(10):
        while not ranks.alive:
            await asyncio.sleep(0)
    assert all_done(await run(works, controller, "a"))
    assert works.metrics.reasons == ["death"]


async def test_out_of_memory_in_a_shared_step_fails_that_job_only(
    works: Works, ranks: Scripted, controller: Controller
) -> None:
    failed = Failed("out_of_memory", "Too large.", "rank 1: OutOfMemoryError", retryable=False, broken=True)
    ranks.on(is_step("large"), GroupBroken("collective", "left a step", failed))
    large, small = await run(works, controller, "large", "small")
    assert isinstance(large, OutOfMemory)
    assert isinstance(small, Result)
    assert ranks.starts == 2


async def test_a_job_that_breaks_the_group_again_and_again_fails(
    works: Works, ranks: Scripted, controller: Controller
) -> None:
    for _ in range(works.config.scheduler.max_losses):
        ranks.on(is_step("cursed"), GroupBroken("death", "illegal instruction"))
    cursed, healthy = await run(works, controller, "cursed", "healthy")
    assert isinstance(cursed, WorkerLost)
    assert not cursed.retryable
    assert isinstance(healthy, Result)


async def test_a_group_is_not_rebuilt_for_ever_for_a_job_that_leaves_nothing(
    works: Works, ranks: Scripted, controller: Controller
) -> None:
    for _ in range(works.config.scheduler.max_losses):
        ranks.on(is_kind(commands.Finish), lambda rank: Done(8))
    (cursed,) = await run(works, controller, "cursed")
    assert isinstance(cursed, WorkerLost)
    assert all_done(await run(works, controller, "healthy"))


async def test_a_failed_rebuild_is_tried_again(works: Works, ranks: Scripted, controller: Controller) -> None:
    ranks.unstartable = 1
    ranks.on(is_step("a"), GroupBroken("death", "killed"))
    assert all_done(await run(works, controller, "a"))
    assert ranks.starts == 3


async def test_a_group_that_cannot_be_rebuilt_gives_its_jobs_back_and_is_ill(
    works: Works, ranks: Scripted, controller: Controller
) -> None:
    ranks.unstartable = 2
    ranks.on(is_step("a"), GroupBroken("death", "killed"))
    assert controller.ailment is None
    results = await run(works, controller, "a", "b", "c")
    assert [type(result) for result in results] == [HandedBack] * 3
    assert "no such device" in (controller.ailment or "")
    with pytest.raises(HandedBack):
        await controller.run(await works.call("late"))


async def test_a_revoked_job_is_not_kept_waiting_by_a_rebuild(
    works: Works, ranks: Scripted, controller: Controller
) -> None:
    gate = asyncio.Event()
    start = ranks.start

    async def slow_start(on_death: Callable[[], None]) -> None:
        await gate.wait()
        await start(on_death)

    ranks.start = slow_start  # type: ignore[method-assign]
    call = await works.call("a", steps=10_000)
    task = asyncio.create_task(controller.run(call))
    await reached(call, 1)
    ranks.die()
    call.lease.judge(Verdict.CANCELLED)
    with pytest.raises(Revoked):
        await task
    assert not gate.is_set()
    gate.set()
    assert all_done(await run(works, controller, "next"))
    assert ranks.told(commands.Prepare) == ["a", "next"]


@pytest.mark.parametrize("error", [Unavailable("The store is away.", retry_after_s=1)])
async def test_work_goes_on_while_snapshots_cannot_be_recorded(
    works: Works, ranks: Scripted, controller: Controller, error: Exception
) -> None:
    works.store.raising = error
    ranks.on(is_kind(commands.Snapshot), lambda _: Failed("service_unavailable", "m", "disk full", retryable=True))
    ranks.on(is_step("a", after=5), GroupBroken("death", "killed"))
    assert all_done(await run(works, controller, "a"))
    assert ranks.told(commands.Step).count("a") == 9  # resumed from what the artifact store holds


async def test_a_stale_owner_stops_at_its_snapshot(works: Works, ranks: Scripted, controller: Controller) -> None:
    works.store.raising = StaleEpoch("stale")
    (result,) = await run(works, controller, "a")
    assert isinstance(result, StaleEpoch)
    assert ranks.told(commands.Step) == ["a"]


async def test_a_job_is_busy_in_its_own_commands_only(
    works: Works, ranks: Scripted, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by a second with every command: two residents share the wall time."""
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: float(len(ranks.log))))
    calls = [await works.call(job) for job in ("a", "b")]
    await asyncio.gather(*(controller.run(call) for call in calls))
    own = len(["prepare", "commit"]) + 8 + 7 + len(["finish"])  # steps, and a snapshot after each but the last
    assert [call.lease.busy_s for call in calls] == [own, own]
