"""One job's rows as the lifecycle sees them, and what follows from them alone: progress, phase, verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cluster.graphs import NodeKey, Source
from cluster.records import Extension, Failure, Handle, JobState, StageState, Verdict


@dataclass(slots=True)
class JobRow:
    """What the lifecycle reads and writes of a job row; the defaults are a new job's."""

    id: str
    state: JobState = JobState.QUEUED
    phase: str = JobState.QUEUED.value
    progress: float = 0.0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    expires_at: datetime | None = None
    ends_at: datetime | None = None
    failure: Failure | None = None
    last_seq: int = 0
    sweep_at: datetime | None = None
    told_percent: int = 0  # of the last `progress` event
    told_at: datetime | None = None
    extension: Extension | None = None


@dataclass(slots=True)
class StageRow:
    """What the lifecycle reads and writes of a stage row; the defaults are a new stage's.

    `outputs` and `snapshot` are written only.
    """

    stage: str
    result: int
    chunk: int
    position: int
    weight: float
    final: bool
    inputs: Mapping[str, Source]
    state: StageState = StageState.BLOCKED
    epoch: int = 0
    attempt: int = 0
    losses: int = 0
    failures: int = 0
    step: int = 0
    steps: int = 0
    snapshot_step: int = 0
    worker: str | None = None
    ready_at: datetime | None = None
    dispatched_at: datetime | None = None
    claimed_at: datetime | None = None
    done_at: datetime | None = None
    lease_until: datetime | None = None
    outputs: Mapping[str, Handle] | None = None
    snapshot: Handle | None = None
    devices: int = 0
    busy_s: float = 0.0
    saved_s: float = 0.0

    @property
    def key(self) -> NodeKey:
        return self.stage, self.result, self.chunk

    @property
    def fraction(self) -> float:
        """How much of the stage is done, 0.0 … 1.0."""
        if self.state is StageState.DONE:
            return 1.0
        return min(self.step / self.steps, 1.0) if self.steps else 0.0


def progress(stages: Iterable[StageRow]) -> float:
    """Σ weight · fraction done ⁄ Σ weight, 0.0 … 1.0."""
    rows = list(stages)
    total = math.fsum(stage.weight for stage in rows)
    done = math.fsum(stage.weight * stage.fraction for stage in rows)
    return min(done / total, 1.0) if total > 0 else 0.0


def running_phase(stages: Iterable[StageRow]) -> str:
    """The heaviest stage that a worker holds (what a client waits for), "waiting" when none is held."""
    held = [stage for stage in stages if stage.state is StageState.CLAIMED]
    return max(held, key=lambda stage: (stage.weight, -stage.position)).stage if held else "waiting"


def verdict(state: StageState, epoch: int, call_epoch: int) -> Verdict:
    """A cancelled stage keeps its epoch: so its last holder learns why it must stop."""
    if epoch != call_epoch:
        return Verdict.STALE
    if state is StageState.CANCELLED:
        return Verdict.CANCELLED
    return Verdict.ALIVE if state is StageState.CLAIMED else Verdict.STALE
