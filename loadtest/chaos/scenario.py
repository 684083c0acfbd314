"""What will be asked and who will be hurt when: all of it drawn from one seed before anything happens.

The requests are few and the jobs many, so that most results have twins whose bytes must be equal.
"""

from __future__ import annotations

import enum
import random
import uuid
from collections.abc import Iterator, Mapping
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
LATEST_FATE_S = 4.0
LONGEST_HANG_UP_S = 0.03
LONGEST_FREEZE_S = 20.0


class Fate(enum.StrEnum):
    """What the caller does with a job after it was accepted."""

    FINISH = "finish"
    CANCEL = "cancel"
    DELETE = "delete"


class Fault(enum.StrEnum):
    """What is done to the system."""

    KILL = "kill"  # SIGKILL of a process
    STOP = "stop"  # SIGSTOP of a process, and SIGCONT after a while
    DRAIN = "drain"  # a deployment is replaced while it works, as by a new version
    OUTAGE = "outage"  # the job store takes no writes for a while


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of chaos: faults with their weights."""

    about: str
    faults: Mapping[Fault, float]

    @property
    def own(self) -> bool:
        """Whether it needs more than signals: a system that the harness has started itself."""
        return not self.faults.keys() <= {Fault.KILL, Fault.STOP}


KINDS: Mapping[str, Kind] = {
    "mixed": Kind("processes of every kind are killed, a quarter stopped for a while", {Fault.STOP: 1, Fault.KILL: 3}),
    "kills": Kind("processes of every kind are killed", {Fault.KILL: 1}),
    "stops": Kind("processes of every kind are stopped for a while", {Fault.STOP: 1}),
    "drains": Kind("deployments are replaced while they work", {Fault.DRAIN: 1}),
    "database": Kind(
        "the job store takes no writes for a while, and processes are killed", {Fault.OUTAGE: 1, Fault.KILL: 2}
    ),
}


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
    """One hurt. `pick` in [0, 1) chooses among the kinds, then among their processes."""

    wait_s: float  # since the hurt before
    kind: float
    pick: float
    fault: Fault
    lasts_s: float  # of a stop or an outage


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


def hurts(seed: int, *, every_s: float, faults: Mapping[Fault, float] = KINDS["mixed"].faults) -> Iterator[HurtPlan]:
    """Hurts without end, `every_s` apart on average."""
    draw = random.Random(f"hurts {seed}")
    while True:
        yield HurtPlan(
            wait_s=draw.uniform(0.5 * every_s, 1.5 * every_s),
            kind=draw.random(),
            pick=draw.random(),
            fault=_pick(draw, faults),
            lasts_s=draw.uniform(1.0, min(LONGEST_FREEZE_S, 2 * every_s)),
        )


def _pick(draw: random.Random, faults: Mapping[Fault, float]) -> Fault:
    (fault,) = draw.choices(tuple(faults), tuple(faults.values()))
    return fault
