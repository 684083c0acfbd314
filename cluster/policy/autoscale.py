"""How many replicas each pool should have, for all pools in one decision.

What counts is work, not requests: calls that are ready or running, in seconds of stage time. A pool gets as many
replicas as do that work within `backlog_s`. Until a stage has been measured, its calls are counted instead: one slot
each.

Stages are coupled. A job whose text is being encoded will need a denoiser and a decoder, so every pool behind
unfinished work is started in the same decision, and none is stopped while work is on its way to it. How many such a
pool needs is bounded by how fast the work can arrive: the finishing rate of the pools before it, at the sizes of this
same decision. A flood that a full denoiser pool works off for an hour therefore does not start decoders for all of it.

The time a target must have been wanted before it is followed is Serve's part (`upscale_delay_s`, `downscale_delay_s` of
its `autoscaling_config`), because those may change while everything runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from math import ceil, inf

BACKLOG_S = 60.0
_ROUNDING = 1e-9  # sums of seconds are not exact; a replica is not worth the last bit


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What there is to do of one stage."""

    stage: str
    ready: int = 0  # calls that wait for a slot
    running: int = 0  # calls dispatched or claimed
    left: float = 0.0  # of the running ones, how many calls' worth is not done yet
    call_s: float | None = None  # mean seconds that a call computes; None until some have been measured


@dataclass(frozen=True, slots=True)
class PoolSize:
    """One pool: what a replica takes on, and between which counts it may be scaled."""

    name: str
    slots: Mapping[str, int]  # stage → calls at once in a replica
    least: int
    most: int
    lanes: Mapping[str, int] = field(default_factory=dict)  # stage → calls at full speed at once, if not all slots are


class Cause(StrEnum):
    """Why a pool has its target: a bounded set, for a metric's label."""

    IDLE = "idle"
    BACKLOG = "backlog"
    STEADY = "steady"  # what runs fills them
    COUPLED = "coupled"  # work is on its way from other pools
    MINIMUM = "minimum"
    MAXIMUM = "maximum"


@dataclass(frozen=True, slots=True)
class Decision:
    """A pool's target, what it would be without bounds, and why."""

    pool: str
    target: int
    wanted: int
    cause: Cause
    why: str
    work_s: float = 0.0  # ready and running here, in seconds of stage time; 0 for what is not measured yet


def autoscale(
    pools: Iterable[PoolSize],
    loads: Iterable[StageLoad],
    feeds: Iterable[tuple[str, str]],
    *,
    backlog_s: float = BACKLOG_S,
) -> dict[str, Decision]:
    """The target of each pool.

    Args:
        pools: all that host stages, also those of a fixed size (`least` equals `most`); no stage in two of them.
        loads: of each stage that has any.
        feeds: (stage, stage that reads its outputs), without cycles.
        backlog_s: within which the work that exists should be done.

    Raises:
        ValueError: `backlog_s` is not positive, or the feeds have a cycle.
    """
    if backlog_s <= 0:
        raise ValueError(f"backlog_s must be positive, got {backlog_s}")
    plans = [_Plan(pool) for pool in pools]
    hosts = {stage: plan for plan in plans for stage in plan.pool.slots}
    known = {load.stage: load for load in loads}
    flows: dict[str, _Flow] = {}
    for stage, sources in _in_order(hosts, feeds).items():
        # A call of the stage follows when all that it reads are done, so its sources are not added up.
        coming = max((flows[source].calls for source in sources), default=0)
        load = known.get(stage, StageLoad(stage))
        plan = hosts.get(stage)
        if plan is None:
            flows[stage] = _Flow(load.ready + load.running + coming, inf)
            continue
        rates = (flows[source].rate for source in sources if flows[source].calls)
        plan.add(load, coming, min(rates, default=inf), backlog_s)
        flows[stage] = _Flow(load.ready + load.running + coming, plan.rate(load))
    return {plan.pool.name: plan.decide() for plan in plans}


def _in_order(hosts: Iterable[str], feeds: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Each stage with those it reads, sources first."""
    sources: dict[str, list[str]] = {stage: [] for stage in hosts}
    for source, reader in feeds:
        sources.setdefault(source, [])
        sources.setdefault(reader, []).append(source)
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        raise ValueError(f"feeds have a cycle: {' → '.join(error.args[1])}") from error
    return {stage: sources[stage] for stage in order}


@dataclass(frozen=True, slots=True)
class _Flow:
    calls: int  # that will leave the stage
    rate: float  # at which they can, per second


@dataclass(slots=True)
class _Plan:
    """A pool's needs, stage by stage."""

    pool: PoolSize
    need: float = 0.0  # replicas that the present work keeps busy
    arriving: float = 0.0  # replicas more, for what comes from other pools
    work_s: float = 0.0
    calls: int = 0
    held: int = 0  # replicas that the running calls fill
    coming: int = 0
    counted: list[str] = field(default_factory=list)  # stages not measured yet

    def add(self, load: StageLoad, coming: int, rate: float, backlog_s: float) -> None:
        """Takes in what one of its stages has to do; `rate` in calls per second bounds what comes."""
        here = load.ready + load.running
        self.calls += here
        self.coming += coming
        self.held = max(self.held, ceil(load.running / self.pool.slots[load.stage]))
        if load.call_s is None:
            self.need += here / self.pool.slots[load.stage]
            self.counted += [load.stage] if here else []
            return
        lanes = self._lanes(load.stage)
        work_s = (load.ready + min(load.left, load.running)) * load.call_s
        self.work_s += work_s
        self.need += work_s / lanes / backlog_s
        if coming and rate < inf:
            self.arriving += min(coming / backlog_s, rate) * load.call_s / lanes

    def rate(self, load: StageLoad) -> float:
        """Calls of the stage per second, at the size decided so far; unknown is infinite."""
        return self.decide().target * self._lanes(load.stage) / load.call_s if load.call_s else inf

    def decide(self) -> Decision:
        """The target, and the strongest reason for it."""
        need = ceil(self.need + self.arriving - _ROUNDING)
        useful = min(need, self.calls + self.coming)  # more replicas than calls would wait for nothing
        wanted = max(useful, self.held, min(1, self.calls + self.coming))
        target = max(self.pool.least, min(wanted, self.pool.most))
        cause, why = self._reason(wanted, target)
        return Decision(self.pool.name, target, wanted, cause, why, self.work_s)

    def _lanes(self, stage: str) -> int:
        return self.pool.lanes.get(stage, self.pool.slots[stage])

    def _reason(self, wanted: int, target: int) -> tuple[Cause, str]:
        doing = self._doing()
        if target < wanted:
            return Cause.MAXIMUM, f"{doing}; {wanted} wanted, {self.pool.most} is the most"
        if not wanted:
            return (Cause.MINIMUM, f"idle; {target} is the least") if target else (Cause.IDLE, "idle")
        if target > wanted:
            return Cause.MINIMUM, f"{doing}; {wanted} wanted, {target} is the least"
        if not self.calls:
            return Cause.COUPLED, doing
        if wanted > max(1, ceil(self.need + self.arriving - _ROUNDING)):
            return Cause.STEADY, f"{doing}; those under way fill {self.held}"
        return Cause.BACKLOG, doing

    def _doing(self) -> str:
        parts = [f"{self.calls} calls here, {self.coming} on their way"]
        if self.work_s:
            parts.append(f"{self.work_s:.3g} s of work")
        if self.counted:
            parts.append(f"{', '.join(self.counted)} not measured yet")
        return ", ".join(parts)
