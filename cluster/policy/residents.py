"""Whose step a denoiser group runs next.

A group holds a few jobs' latents at once and decides again after every step, so an urgent job overtakes between two
steps and nothing is swapped out. The order:

1. class = priority + whole `lift_s` since the job's last step (since its admission before the first),
2. the earlier deadline, none last,
3. the older job,
4. the key, so that equal inputs give equal choices.

Among equals the older job runs all its steps first: taking turns would end every one of them as late as the last.

Why waiting lifts: priority alone starves. A resident keeps its memory while it waits, so a stream of urgent jobs would
pin it there for ever. With the lift its wait is bounded: `lift_s` × (difference of priorities + 1) after its last step
it stands above every job that is being served, whatever their deadlines, and gets a step; only others that have waited
as long can come before it. It then returns to its class, so what it costs the urgent ones is one step per interval.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

LIFT_S = 300.0
_NO_DEADLINE = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One resident that has a step to run. `served_s` is on the caller's clock, like `now_s`."""

    key: str
    priority: int
    deadline_at: datetime | None
    created_at: datetime  # of the job
    served_s: float  # when its last step ended; before the first: when it was admitted


def next_step(candidates: Iterable[Candidate], now_s: float, *, lift_s: float = LIFT_S) -> str | None:
    """The key of the resident whose step runs next; None when there is none.

    Raises:
        ValueError: `lift_s` is not positive.
    """
    if lift_s <= 0:
        raise ValueError(f"lift_s must be positive, got {lift_s}")

    def urgency(candidate: Candidate) -> tuple[float, datetime, datetime, str]:
        lifted = candidate.priority + (now_s - candidate.served_s) // lift_s
        return -lifted, candidate.deadline_at or _NO_DEADLINE, candidate.created_at, candidate.key

    first = min(candidates, key=urgency, default=None)
    return None if first is None else first.key
