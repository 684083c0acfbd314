"""What will be asked and who will be hurt when: all of it drawn from one seed before anything happens.

The requests are few and the jobs many, so that most results have twins whose bytes must be equal.
"""

from __future__ import annotations

import enum
import random
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

PROMPTS = ("A red ball rolls over a grey floor", "A blue triangle spins in the wind")
SEEDS = (1, 2, 7)
RESULTS = (1, 1, 1, 1, 1, 1, 2, 3)
SECONDS = (1, 1, 1, 1, 1, 1, 1, 2)
SHARE_CANCELLED = 0.08
SHARE_DELETED = 0.08
SHARE_HUNG_UP = 0.05
SHARE_REPEATED = 0.2
SHARE_TRESPASSED = 0.2
SHARE_FROZEN = 0.25
LATEST_FATE_S = 4.0
LONGEST_HANG_UP_S = 0.03
LONGEST_FREEZE_S = 20.0


class Fate(enum.StrEnum):
    """What the caller does with a job after it was accepted."""

    FINISH = "finish"
    CANCEL = "cancel"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One job to be asked for. `once` is its idempotency key."""

    index: int
    tenant: int
    prompt: str
    seed: int
    seconds: int
    n: int
    fate: Fate
    fate_after_s: float  # from acceptance
    hang_up_s: float | None  # the first try of the create is abandoned after this long
    repeat: bool  # the create is sent once more after its answer
    trespass: bool  # another tenant reaches for the job
    once: str


@dataclass(frozen=True, slots=True)
class HurtPlan:
    """One process to be hurt. `pick` in [0, 1) chooses among the kinds, then among their processes."""

    wait_s: float  # since the hurt before
    kind: float
    pick: float
    number: signal.Signals
    freeze_s: float  # how long a SIGSTOP lasts


def jobs(seed: int, count: int, *, tenants: int) -> Iterator[JobPlan]:
    """The jobs, in the order of their submission."""
    draw = random.Random(f"jobs {seed}")
    for index in range(count):
        share = draw.random()
        fate = Fate.FINISH
        if share < SHARE_CANCELLED:
            fate = Fate.CANCEL
        elif share < SHARE_CANCELLED + SHARE_DELETED:
            fate = Fate.DELETE
        yield JobPlan(
            index=index,
            tenant=draw.randrange(tenants),
            prompt=draw.choice(PROMPTS),
            seed=draw.choice(SEEDS),
            seconds=draw.choice(SECONDS),
            n=draw.choice(RESULTS),
            fate=fate,
            fate_after_s=draw.uniform(0, LATEST_FATE_S),
            hang_up_s=draw.uniform(0, LONGEST_HANG_UP_S) if draw.random() < SHARE_HUNG_UP else None,
            repeat=draw.random() < SHARE_REPEATED,
            trespass=draw.random() < SHARE_TRESPASSED,
            once=str(uuid.UUID(int=draw.getrandbits(128), version=4)),
        )


def hurts(seed: int, *, every_s: float) -> Iterator[HurtPlan]:
    """Hurts without end, `every_s` apart on average."""
    draw = random.Random(f"hurts {seed}")
    while True:
        yield HurtPlan(
            wait_s=draw.uniform(0.5 * every_s, 1.5 * every_s),
            kind=draw.random(),
            pick=draw.random(),
            number=signal.SIGSTOP if draw.random() < SHARE_FROZEN else signal.SIGKILL,
            freeze_s=draw.uniform(1.0, min(LONGEST_FREEZE_S, 2 * every_s)),
        )
