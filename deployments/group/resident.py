"""One stage call that a group of ranks has been given: admitted, or waiting for its place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace

from cluster.chains import decoded_latents, denoise_steps, new_latents
from cluster.errors import SkyreelsError, StaleEpoch
from cluster.policy.residents import Candidate
from cluster.pools import DENOISE
from cluster.records import Handle, StageWork
from deployments.call import Call, Result
from deployments.group.commands import Done
from deployments.leases import Revoked

Sink = Callable[[Done], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Resident:
    """What the controller keeps of a job. Times are seconds of its monotonic clock."""

    call: Call
    served_s: float  # when its last step ended; before the first: when it came
    result: asyncio.Future[Result]
    sink: Sink | None = None
    snapshot: Handle | None = field(init=False)  # the newest
    prepared: bool = False  # on all ranks
    step: int = 0
    unsaved_s: float = 0.0  # work since the newest snapshot
    breaks: int = 0  # times the group broke in one of its commands

    def __post_init__(self) -> None:
        self.snapshot = self.call.work.snapshot

    @property
    def job(self) -> str:
        """Its name on the ranks; another attempt has another."""
        return f"{self.call.work.call.ref}@{self.call.work.call.epoch}"

    @property
    def work(self) -> StageWork:
        """What ranks build its run from."""
        return replace(self.call.work, snapshot=self.snapshot)

    @property
    def model(self) -> str:
        return self.call.request.model

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more: finished, failed, revoked or handed back."""
        return self.result.done()

    @property
    def writes(self) -> bool:
        """Whether rank 0 writes values in the end; a decode may have written all there is."""
        return self.call.work.call.ref.stage != "decode"

    @property
    def saves(self) -> bool:
        """Whether it has snapshots; shorter work starts over."""
        return self.call.work.call.ref.stage == DENOISE

    @property
    def steps(self) -> int:
        """All of its steps: of the sampler, images to encode, or latent frames to decode."""
        request = self.call.request
        match self.call.work.call.ref.stage:
            case "text":
                return 1
            case "condition":
                return len(request.images) or 1
            case "decode":
                return decoded_latents(request, self.call.work.call.ref.chunk)
        return denoise_steps(request, self.call.work.call.ref.chunk)

    @property
    def left(self) -> int:
        """Steps to go."""
        return self.steps - self.step

    @property
    def shape(self) -> Hashable:
        """What decides how long its steps take."""
        request = self.call.request
        stage = self.call.work.call.ref.stage
        frames = new_latents(request, self.call.work.call.ref.chunk)
        return stage, request.model, request.height, request.width, frames, request.guidance > 1

    @property
    def candidate(self) -> Candidate:
        """The same for the policy."""
        work = self.call.work
        return Candidate(self.job, work.request.priority, work.deadline_at, work.created_at, self.served_s)

    def admitted(self, step: int) -> None:
        """All ranks are ready to go on after so many steps."""
        self.prepared = True
        self.unsaved_s = 0.0
        self._advance(step)

    async def receive(self, done: Done) -> None:
        """What the ranks have done; progress and the sink learn of it. An error of either ends the call."""
        self._advance(done.step)
        if self.sink is not None and not self.gone:
            try:
                await self.sink(done)
            except SkyreelsError as error:
                self.end(error)

    async def saved(self, snapshot: Handle) -> None:
        """It can go on from here. Unavailable: another replica would not know it."""
        self.snapshot = snapshot
        try:
            await self.call.store.save_snapshot(self.call.work.call, snapshot, self.step, busy_s=self.call.lease.busy_s)
        except StaleEpoch as error:
            self.end(error)

    def _advance(self, step: int) -> None:
        self.step = step
        try:
            self.call.lease.advance(step, self.steps)
        except Revoked as revoked:
            self.end(revoked)

    def end(self, error: BaseException) -> None:
        """Whoever waits for it gets the error; nothing when nobody does."""
        if not self.result.done():
            self.result.set_exception(error)
