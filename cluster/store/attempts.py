"""What one attempt of a stage has cost, decided when it ends.

An attempt is claimed under one epoch and ends once: that makes (job, stage, chunk, result, epoch) the key of its row in
the ledger. Useful is what the job goes on with: all of a completed attempt, and of one that another attempt continues
what its newest snapshot holds. Everything else is wasted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from cluster.store.rows import StageRow


class Outcome(enum.StrEnum):
    """How an attempt ended."""

    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # its worker died or stopped answering
    RELEASED = "released"  # given back by a worker that stops
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of the ledger. `useful_s` and `wasted_s` are device-seconds, `wall_s` is from claim to end."""

    stage: str
    chunk: int
    result: int
    epoch: int
    attempt: int
    worker: str | None
    devices: int
    useful_s: float
    wasted_s: float
    wall_s: float
    outcome: Outcome
    reason: str | None


def ended(stage: StageRow, now: datetime, outcome: Outcome, reason: str | None, *, goes_on: bool) -> Attempt:
    """The cost of a claimed stage's attempt as far as its worker has reported it."""
    kept_s = stage.busy_s if outcome is Outcome.DONE else stage.saved_s if goes_on else 0.0
    return Attempt(
        stage=stage.stage,
        chunk=stage.chunk,
        result=stage.result,
        epoch=stage.epoch,
        attempt=stage.attempt,
        worker=stage.worker,
        devices=stage.devices,
        useful_s=kept_s * stage.devices,
        wasted_s=(stage.busy_s - kept_s) * stage.devices,
        wall_s=0.0 if stage.claimed_at is None else (now - stage.claimed_at).total_seconds(),
        outcome=outcome,
        reason=reason,
    )
