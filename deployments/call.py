"""What a replica knows of a stage: how to run a call of it, and what a call has around it.

Nothing here needs a component, so a replica whose stages compute elsewhere loads no tensor library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cluster.records import Artifact, Extension, Handle, Request, StageWork
from cluster.store.base import JobStore
from deployments.artifacts import ArtifactStore, job_key
from deployments.hints import Hints
from deployments.leases import Lease
from deployments.telemetry import Laps, StageMetrics


class HandedBack(Exception):
    """The replica stops before the work is done: the stage goes to another one, and nothing is counted."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a call produced, written durably: handles by port, and the finished file of the final stage."""

    handles: Mapping[str, Handle] = field(default_factory=dict)
    artifact: Artifact | None = None
    hints: Hints = field(default_factory=dict)  # for those of the handles whose values are still in some memory
    extension: Extension | None = None  # of the job's prompt, by the stage that makes it


@dataclass(frozen=True, slots=True)
class Call:
    """The surroundings of one claimed stage call."""

    lease: Lease
    store: JobStore
    artifacts: ArtifactStore
    metrics: StageMetrics
    scratch: Path
    hints: Hints  # for the inputs; may be missing or wrong
    laps: Laps

    @property
    def work(self) -> StageWork:
        return self.lease.work

    @property
    def request(self) -> Request:
        return self.lease.work.request

    @property
    def last(self) -> bool:
        """Whether the call makes its result's file."""
        return self.lease.work.final

    def key(self, name: str) -> str:
        """A storage key that no other attempt of this stage ever writes to."""
        call = self.work.call
        return job_key(call.ref.job_id, "work", f"{call.ref.stage}-{call.ref.part}-{call.epoch}-{name}")


class Stage(Protocol):
    """One stage as its replica sees it."""

    async def run(self, call: Call) -> Result:
        """Does the work of one call. Raises Revoked from the lease when it must stop, HandedBack while draining."""

    def drain(self, deadline_s: float | None) -> None:
        """The replica will be killed at `deadline_s` (monotonic clock); None: it will not after all."""

    @property
    def ailment(self) -> str | None:
        """Why the replica cannot work any more, in a sentence; None while it can."""

    async def close(self) -> None:
        """Ends whatever the stage started."""
