"""The only one that orders the ranks' work: admits calls, picks whose step is next, snapshots, outlives breaks.

One loop issues one command at a time, so ranks never disagree about what they do, and no tensor passes through here.
Whatever breaks the ranks has the same answer: end them all, make new ones in the same place (`crew`), and prepare the
resident calls again, from their newest snapshots where they have any.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from cluster.config import Config
from cluster.errors import ConfigError, Unavailable, WorkerLost
from cluster.policy.residents import next_step
from cluster.pools import DENOISE
from deployments.call import Call, HandedBack, Result
from deployments.group import commands
from deployments.group.commands import SNAPSHOT_MISMATCH, Command, Done, Failed, Outcome
from deployments.group.crew import Crew, agreed, failure
from deployments.group.pace import Pace
from deployments.group.ranks import GroupBroken, Ranks
from deployments.group.resident import Resident, Sink
from deployments.telemetry import GroupMetrics

METRICS_S = 5.0  # Ray forgets a gauge that is not set again
WRITE_S = 30.0  # for steps that write, too
Told = Callable[[Sequence[str]], Awaitable[None]]  # the loaded models, the one used now last


class Controller:
    """Runs stage calls on one group of ranks, a few at once."""

    def __init__(
        self, ranks: Ranks, config: Config, *, residents: int, metrics: GroupMetrics, log: logging.Logger, told: Told
    ) -> None:
        names = [served.name for served in config.models]
        self._crew = Crew(ranks, config.denoise, names[: config.denoise.loaded], log)
        self._config = config
        self._limits = config.denoise
        self._places = residents
        self._metrics = metrics
        self._log = log
        self._told = told
        self._pace = self._new_pace()
        self._waiting: deque[Resident] = deque()
        self._residents: dict[str, Resident] = {}
        self._current: Resident | None = None  # whose command is on its way
        self._wake = asyncio.Event()
        self._kill_s: float | None = None  # when the replica will be killed
        self._ailment: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Brings the ranks up with the first model loaded.

        Raises:
            ConfigError: they cannot be, with the reason.
        """
        try:
            await self._crew.build(self._wake.set)
        except GroupBroken as broken:
            raise ConfigError(f"The group of ranks does not start: {broken.reason}") from broken
        await self._told(self._crew.models)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends the loop and the ranks."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._crew.stop()
        except GroupBroken as broken:
            self._log.warning("ranks left behind: %s", broken.reason)

    @property
    def ailment(self) -> str | None:
        """Why the group cannot work any more; None while it can."""
        if self._ailment is None and self._task is not None and self._task.done():
            return "the controller's loop has ended"
        return self._ailment

    def drain(self, kill_s: float | None) -> None:
        """From now on calls that cannot end before `kill_s` (monotonic clock) are handed back; None: no more."""
        self._kill_s = kill_s
        self._wake.set()

    async def run(self, call: Call, sink: Sink | None = None) -> Result:
        """Runs a claimed call; its result, as written by rank 0.

        Args:
            call: of one of the group's stages.
            sink: gets what rank 0 answers to every step and to the last command, from the start again when the group
                had to be rebuilt; an error that it raises ends the call.

        Raises:
            Revoked: the lease ended; the job leaves the group before the next command.
            HandedBack: the replica stops, or the group has given up.
            StageError: the job failed.
        """
        if self._ailment is not None:
            raise HandedBack(self._ailment)
        resident = Resident(call, time.monotonic(), asyncio.get_running_loop().create_future(), sink)
        self._waiting.append(resident)
        self._wake.set()
        revoked = asyncio.create_task(call.lease.revoked.wait())
        try:
            either: list[asyncio.Future[Any]] = [resident.result, revoked]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if revoked.done():
                call.lease.check()
            return resident.result.result()
        finally:
            revoked.cancel()
            if not resident.result.cancel() and not resident.result.cancelled():
                resident.result.exception()  # seen, even when the lease ended first
            self._wake.set()

    # -- the loop ----------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        while self._ailment is None:
            try:
                await self._tick()
            except GroupBroken as broken:
                await self._rebuild(broken)

    async def _tick(self) -> None:
        """One decision and what follows from it; waits when there is nothing to do."""
        self._wake.clear()
        if not self._crew.alive:
            raise GroupBroken("death", "a rank died")
        await self._remove()
        await self._hand_back()
        await self._admit()
        now_s = time.monotonic()
        key = next_step((resident.candidate for resident in self._residents.values() if resident.prepared), now_s)
        if key is not None:
            await self._step(self._residents[key])
        elif not self._waiting and not self._residents:
            with suppress(TimeoutError):
                async with asyncio.timeout(METRICS_S):
                    await self._wake.wait()

    async def _remove(self) -> None:
        """Forgets jobs that nobody waits for."""
        self._waiting = deque(resident for resident in self._waiting if not resident.gone)
        for key, resident in list(self._residents.items()):
            if resident.gone:
                await self._order(commands.Drop(key))
                del self._residents[key]
        unsaved_s = max((resident.unsaved_s for resident in self._residents.values() if resident.saves), default=0.0)
        self._metrics.holds(len(self._residents), self._places, unsaved_s)

    async def _admit(self) -> None:
        """Gives free places to those who wait, in the order they came. Weights go only when nobody uses them."""
        while self._waiting and len(self._residents) < self._places:
            if not await self._loaded(self._waiting[0].model):
                break
            resident = self._waiting.popleft()
            self._residents[resident.job] = resident
        for resident in self._residents.values():
            if not resident.prepared and not resident.gone:
                await self._prepare(resident)

    async def _loaded(self, model: str) -> bool:
        """Sees to it that a model is loaded, in the place of the one unused for longest; False while all are used."""
        loaded = self._crew.models
        if model in loaded:
            self._crew.used(model)
            await self._told(self._crew.models)
            return True
        used = {resident.model for resident in self._residents.values()}
        unused = [name for name in loaded if name not in used]
        full = len(loaded) >= self._limits.loaded
        if full and not unused:
            return False
        began_s = time.monotonic()
        await self._crew.load(model, unused[0] if full else None)
        self._metrics.exchanged(time.monotonic() - began_s)
        await self._told(self._crew.models)
        return True

    async def _prepare(self, resident: Resident) -> None:
        """Two phases: what one rank refuses, all forget."""
        with resident.call.laps.lap("prepare"):
            prepare = commands.Prepare(resident.job, resident.work, resident.call.hints)
            outcomes = await self._order(prepare, resident)
        if failed := failure(outcomes):
            if failed.code == SNAPSHOT_MISMATCH and resident.snapshot is not None:
                self._log.warning("snapshot refused, the job starts over: %s", failed.reason)
                await self._order(commands.Drop(resident.job))
                resident.snapshot = None
                return await self._prepare(resident)
            return self._fail(resident, failed)
        resident.admitted(agreed(await self._order(commands.Commit(resident.job), resident)).step)
        return None

    async def _step(self, resident: Resident) -> None:
        if resident.left:
            began_s = time.monotonic()
            bound_s = self._pace.bound_s(resident.shape) + (0.0 if resident.saves else WRITE_S)
            outcomes = await self._order(commands.Step(resident.job), resident, bound_s)
            if failed := failure(outcomes):
                return self._fail(resident, failed)
            self._crew.check(resident.model, outcomes)
            resident.served_s = time.monotonic()
            self._count(resident, resident.served_s - began_s)
            await resident.receive(agreed(outcomes))
        if resident.gone:
            return None
        if not resident.left:
            return await self._finish(resident)
        if resident.saves and resident.unsaved_s >= self._limits.snapshot_s:
            return await self._save(resident)
        return None

    async def _finish(self, resident: Resident) -> None:
        with resident.call.laps.lap("finish"):
            finish = commands.Finish(resident.job, resident.call.key(""))
            outcomes = await self._order(finish, resident)
        if failed := failure(outcomes):
            return self._fail(resident, failed)
        done = agreed(outcomes)
        if not done.handles and resident.writes:
            self._current = resident  # it is to blame, or the group would be rebuilt for it for ever
            raise GroupBroken("protocol", "rank 0 wrote nothing")
        await resident.receive(done)
        if not resident.gone:
            resident.result.set_result(Result(done.handles, hints=done.hints))
        return None

    async def _save(self, resident: Resident) -> None:
        """Writes a snapshot. One that cannot be written costs nothing but safety: the work goes on."""
        resident.unsaved_s = 0.0
        key = resident.call.key(f"snapshot-{resident.step}.safetensors")
        outcomes = await self._order(commands.Snapshot(resident.job, key), resident)
        if failed := failure(outcomes):
            return self._log.warning("no snapshot: %s", failed.reason)
        handle = outcomes[0].handle if isinstance(outcomes[0], Done) else None
        if handle is None:
            raise GroupBroken("protocol", "rank 0 wrote no snapshot")
        try:
            await resident.saved(handle)
        except Unavailable as error:
            self._log.warning("snapshot not recorded: %s", error)
        return None

    async def _hand_back(self) -> None:
        """While draining: jobs that cannot end in half of the time left go back, with all their steps saved."""
        if self._kill_s is None:
            return
        left_s = self._kill_s - time.monotonic()
        for resident in (*self._waiting, *self._residents.values()):
            typical_s = self._pace.typical_s(resident.shape)
            if resident.gone or (resident.prepared and typical_s and resident.left * typical_s < left_s / 2):
                continue
            if resident.saves and resident.prepared and resident.unsaved_s:
                await self._save(resident)
            self._log.info("handed back", extra={"job": resident.job, "step": resident.step})
            resident.end(HandedBack("the replica stops"))
        await self._remove()

    # -- ranks -------------------------------------------------------------------------------------------------
    async def _order(
        self, command: Command, resident: Resident | None = None, bound_s: float | None = None
    ) -> Sequence[Outcome]:
        """As `Crew.order`; whose command it is, is known if it breaks the group."""
        self._current = resident
        # Only a job's own commands are its compute time, not the steps of the other residents between them.
        with nullcontext() if resident is None else resident.call.lease.computing():
            outcomes = await self._crew.order(command, bound_s)
        self._current = None
        return outcomes

    async def _rebuild(self, broken: GroupBroken) -> None:
        """New ranks in the place of the old; when they do not come, the group gives up."""
        began_s = time.monotonic()
        self._log.error("group broken: %s", broken.reason, extra={"kind": broken.kind, "command": self._crew.number})
        self._metrics.broke(broken.kind)
        self._blame(broken)
        for resident in self._residents.values():
            resident.prepared = False
        self._pace = self._new_pace()  # first steps of new processes are slow
        reason = await self._crew.rebuild(broken)
        if reason is None:
            # Those who left meanwhile are unknown to the new ranks.
            self._residents = {key: resident for key, resident in self._residents.items() if not resident.gone}
            self._log.info("group rebuilt", extra={"seconds": round(time.monotonic() - began_s, 3)})
            return
        self._ailment = f"the group of ranks could not be rebuilt: {reason}"
        for resident in (*self._waiting, *self._residents.values()):
            resident.end(HandedBack(self._ailment))

    def _blame(self, broken: GroupBroken) -> None:
        """The job whose command broke the group: it ends if that is its own fault, or happens again and again."""
        resident, self._current = self._current, None
        if resident is None:
            return
        resident.breaks += 1
        if broken.failed is not None and not broken.failed.retryable:
            self._fail(resident, broken.failed)
        elif resident.breaks >= self._config.scheduler.max_losses:
            message = f"The group of ranks broke {resident.breaks} times while it worked on this job."
            resident.end(WorkerLost(message, retryable=False))

    # -- small things ------------------------------------------------------------------------------------------
    def _new_pace(self) -> Pace:
        return Pace(self._limits.step_floor_s, self._limits.step_timeout_s)

    def _fail(self, resident: Resident, failed: Failed) -> None:
        self._log.warning("job failed: %s", failed.reason, extra={"job": resident.job, "code": failed.code})
        resident.end(failed.error())

    def _count(self, resident: Resident, seconds: float) -> None:
        resident.unsaved_s += seconds
        self._pace.measured(resident.shape, seconds)
        self._metrics.worked(seconds)
        if resident.call.work.call.ref.stage == DENOISE:
            request = resident.call.request
            self._metrics.stepped(request.model, request.resolution, seconds)
