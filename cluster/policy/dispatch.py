"""Which ready stages go to workers now.

Only into free slots, so that Serve's own queues stay empty and the order is decided as late as possible. For each slot
of a stage, first the tenant is chosen, then which of its jobs.

Between tenants:

1. class = the highest priority among the tenant's waiting jobs + whole `lift_s` since the tenant was last served at
   this stage (since its oldest waiting job came, if that is later),
2. the tenant with fewer device-seconds: those of its attempts that ended lately, plus what its calls under way and
   those chosen in this plan will cost at the average of their stage,
3. the order of the jobs that would run.

Within a tenant:

1. class = priority + whole `lift_s` that the job has waited since its creation,
2. the earlier deadline, none last,
3. the older job,
4. the reference, so that equal inputs give equal plans.

Why age lifts: priority alone starves. While urgent jobs arrive as fast as they are served, a job of the class below
never runs. With the lift its wait is bounded: after `lift_s` × (difference of priorities) it stands in the class of the
urgent ones that arrive then, and one `lift_s` later above them, whatever their deadlines. Counting from the job's
creation, not from the stage's readiness, also lets a job that has already used a GPU finish before a younger one of its
priority begins.

Why a job's age does not count between tenants: the old jobs of a flood would stand above whatever another tenant asks
for now, for as long as the flood lasts. There the wait since the tenant's last service counts instead, which a flood
that is being served does not have.

A tenant that has as many jobs in progress as it may only goes on with those.

The results of one job stand next to each other in this order, so they go out together into whatever slots are free, and
Serve hands one call after the other to the less loaded of two replicas.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cluster.records import StageRef
from cluster.store.base import ClusterState, ReadyStage
from cluster.tenancy import Limits, TenantLoad

LIFT_S = 300.0
CALL_S = 1.0  # device-seconds of a call of a stage whose average is not known
_NO_DEADLINE = datetime.max.replace(tzinfo=UTC)
_Order = tuple[int, datetime, datetime, StageRef]
_Rank = tuple[int, float, _Order]


def plan(state: ClusterState, *, limits: Limits | None = None, lift_s: float = LIFT_S) -> list[StageRef]:
    """The stages to dispatch, stage by stage, the most urgent first.

    Raises:
        ValueError: `lift_s` is not positive.
    """
    if lift_s <= 0:
        raise ValueError(f"lift_s must be positive, got {lift_s}")
    limits = limits or Limits()
    waiting: defaultdict[str, defaultdict[str, list[ReadyStage]]] = defaultdict(lambda: defaultdict(list))
    shares: dict[str, _Share] = {}
    for item in sorted(state.ready, key=lambda item: _urgency(item, state.now, lift_s)):
        waiting[item.ref.stage][item.tenant_id].append(item)
        if item.tenant_id not in shares:
            shares[item.tenant_id] = _share(state, item.tenant_id, limits)
    free = free_slots(state)
    chosen: list[StageRef] = []
    for stage, queues in waiting.items():
        stalls = {name: _Stall(stage, queue, shares[name]) for name, queue in queues.items()}
        ranks = {name: stall.rank(state.now, lift_s) for name, stall in stalls.items()}
        for _ in range(free[stage]):
            standing = [(rank, name) for name, rank in ranks.items() if rank is not None]
            if not standing:
                break
            name = min(standing)[1]
            chosen.append(stalls[name].take(state.call_s.get(stage, CALL_S)))
            ranks[name] = stalls[name].rank(state.now, lift_s)
    return chosen


def free_slots(state: ClusterState) -> Counter[str]:
    """Per stage: live slots less the rows that fill them. A worker that drains or is dead has no slots, so what it
    still holds fills none of the others'.
    """
    free: Counter[str] = Counter()
    for worker in state.workers:
        free.update(worker.slots)
    free.subtract(state.busy)
    free.update(state.leaving)
    return free


@dataclass(slots=True)
class _Share:
    """What a tenant has and may still have, as the plan goes on."""

    load: TenantLoad
    used_s: float
    room: int | None  # jobs that may still begin; None = any number
    begun: set[str] = field(default_factory=set)  # in this plan

    def may(self, item: ReadyStage) -> bool:
        return item.begun or self.room is None or self.room > 0 or item.ref.job_id in self.begun

    def took(self, item: ReadyStage, cost_s: float) -> None:
        self.used_s += cost_s
        if not item.begun and item.ref.job_id not in self.begun:
            self.begun.add(item.ref.job_id)
            self.room = None if self.room is None else self.room - 1


def _share(state: ClusterState, tenant_id: str, limits: Limits) -> _Share:
    load = state.loads.get(tenant_id, TenantLoad())
    under_way_s = sum(count * state.call_s.get(stage, CALL_S) for stage, count in load.held.items())
    most = limits.of(tenant_id).running
    return _Share(load, load.used_s + under_way_s, None if most is None else max(most - load.running, 0))


@dataclass(slots=True)
class _Stall:
    """One tenant's waiting calls of one stage, in its own order."""

    stage: str
    queue: list[ReadyStage]
    share: _Share
    served: bool = False  # in this plan
    _ready: Sequence[ReadyStage] = ()

    def rank(self, now: datetime, lift_s: float) -> _Rank | None:
        """Where the tenant stands; None when nothing of it may run."""
        self._ready = [item for item in self.queue if self.share.may(item)]
        if not self._ready:
            return None
        priority = max(item.priority for item in self._ready)
        return -priority - self._lift(now, lift_s), self.share.used_s, _urgency(self._ready[0], now, lift_s)

    def take(self, cost_s: float) -> StageRef:
        """Its next call runs."""
        item = self._ready[0]
        self.queue.remove(item)
        self.share.took(item, cost_s)
        self.served = True
        return item.ref

    def _lift(self, now: datetime, lift_s: float) -> int:
        if self.served or self.share.load.held.get(self.stage):
            return 0
        since = min(item.created_at for item in self._ready)
        last = self.share.load.served_at.get(self.stage)
        return (now - (since if last is None else max(since, last))) // timedelta(seconds=lift_s)


def _urgency(item: ReadyStage, now: datetime, lift_s: float) -> _Order:
    lifted = item.priority + (now - item.created_at) // timedelta(seconds=lift_s)
    return -lifted, item.deadline_at or _NO_DEADLINE, item.created_at, item.ref
