from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.policy.dispatch import plan
from cluster.records import StageRef
from cluster.store.base import ClusterState, ReadyStage
from cluster.tenancy import Limits, TenantLimits, TenantLoad
from tests.unit.cluster.makers import EPOCH, worker

NOW = EPOCH + timedelta(hours=1)
STAGES = ("text", "denoise", "decode")


def ready(
    job: str,
    *,
    stage: str = "denoise",
    priority: int = 0,
    age_s: float = 10,
    due_s: float | None = None,
    tenant: str = "t",
    begun: bool = False,
) -> ReadyStage:
    due: datetime | None = None if due_s is None else NOW + timedelta(seconds=due_s)
    created = NOW - timedelta(seconds=age_s)
    return ReadyStage(StageRef(job, stage), "m", "g", 1, tenant, priority, due, created, created, begun)


def state(items: list[ReadyStage], slots: dict[str, int], busy: dict[str, int] | None = None) -> ClusterState:
    return ClusterState(NOW, items, [worker("w", **slots)] if slots else [], busy or {})


def order(*items: ReadyStage, lift_s: float = 3600) -> list[str]:
    return [ref.job_id for ref in plan(state(list(items), {"denoise": 99}), lift_s=lift_s)]


def test_priority_then_deadline_then_age() -> None:
    assert order(
        ready("young", age_s=1),
        ready("old", age_s=100),
        ready("due later", due_s=60),
        ready("due soon", due_s=30),
        ready("urgent", priority=1, age_s=0),
    ) == ["urgent", "due soon", "due later", "old", "young"]


def test_waiting_lifts_by_one_class_per_interval() -> None:
    waiting, urgent = ready("waiting", age_s=119), ready("urgent", priority=2, age_s=0)
    assert order(waiting, urgent, lift_s=60) == ["urgent", "waiting"]
    assert order(ready("waiting", age_s=120), urgent, lift_s=60) == ["waiting", "urgent"]


def test_an_endless_stream_of_urgent_jobs_starves_nobody() -> None:
    lift_s, served = 10.0, None
    for tick in range(100):
        late = ready("late", age_s=tick)
        fresh = ready(f"urgent{tick}", priority=3, age_s=0, due_s=1)
        (chosen,) = plan(state([late, fresh], {"denoise": 1}), lift_s=lift_s)
        if chosen == late.ref:
            served = tick
            break
    assert served == 40  # three classes up, and one more to pass their deadlines


def test_rows_in_flight_and_dead_workers_take_slots() -> None:
    items = [ready(f"j{index}") for index in range(5)]
    assert len(plan(state(items, {"denoise": 3}, {"denoise": 1}))) == 2
    assert plan(state(items, {"denoise": 1}, {"denoise": 2})) == []
    assert plan(state(items, {})) == []
    assert plan(state(items, {"text": 4})) == []


def test_results_of_one_job_go_out_together() -> None:
    first = [replace(ready("first"), ref=StageRef("first", "denoise", 0, result)) for result in range(3)]
    queue = [*first, ready("second", age_s=1)]
    assert plan(state(queue[::-1], {"denoise": 2})) == [item.ref for item in first[:2]]
    assert plan(state(queue[::-1], {"denoise": 4})) == [item.ref for item in queue]


def shared(
    items: list[ReadyStage],
    slots: int = 1,
    loads: dict[str, TenantLoad] | None = None,
    limits: Limits | None = None,
    **call_s: float,
) -> list[str]:
    cluster = replace(state(items, {"denoise": slots}), loads=loads or {}, call_s=call_s)
    return [ref.job_id for ref in plan(cluster, limits=limits, lift_s=60)]


def test_a_flood_leaves_the_next_slot_to_who_has_used_less() -> None:
    flood = [ready(f"flood{index}", tenant="greedy", age_s=7200 - index) for index in range(50)]
    small = ready("small", tenant="modest", age_s=1)
    loads = {"greedy": TenantLoad(used_s=100, held={"denoise": 4}), "modest": TenantLoad(used_s=5)}
    assert shared([*flood, small], loads=loads) == ["small"]


def test_free_slots_are_shared_by_what_calls_cost() -> None:
    items = [ready(f"{tenant}{index}", tenant=tenant, age_s=9 - index) for tenant in "ab" for index in range(4)]
    assert shared(items, slots=4, denoise=10.0) == ["a0", "b0", "a1", "b1"]
    ahead = {"a": TenantLoad(used_s=20)}
    assert shared(items, slots=4, loads=ahead, denoise=10.0) == ["b0", "b1", "a0", "b2"]
    running = {"a": TenantLoad(held={"denoise": 2})}
    assert shared(items, slots=4, loads=running, denoise=10.0) == ["b0", "b1", "a0", "b2"]


def test_priority_goes_before_fairness() -> None:
    loads = {"greedy": TenantLoad(used_s=100)}
    items = [ready("urgent", tenant="greedy", priority=1, age_s=1), ready("plain", tenant="modest", age_s=1)]
    assert shared(items, loads=loads) == ["urgent"]


def test_urgent_tenants_starve_nobody() -> None:
    """The one that waits rises, whatever the others ask for, and sinks again once it is served."""
    loads = {"greedy": TenantLoad(served_at={"denoise": NOW - timedelta(seconds=1)})}
    urgent = ready("urgent", tenant="greedy", priority=2, age_s=1000)
    assert shared([urgent, ready("late", tenant="modest", age_s=119)], loads=loads) == ["urgent"]
    assert shared([urgent, ready("late", tenant="modest", age_s=180)], loads=loads) == ["late"]
    served = loads | {"modest": TenantLoad(served_at={"denoise": NOW - timedelta(seconds=59)})}
    assert shared([urgent, ready("late", tenant="modest", age_s=180)], loads=served) == ["urgent"]


def test_over_the_running_limit_only_begun_jobs_go_on() -> None:
    limits = Limits(tenants={"t": TenantLimits(running=2)})
    items = [ready("new", priority=5), ready("newer", priority=5, age_s=1), ready("begun", begun=True)]
    full, room = {"t": TenantLoad(running=2)}, {"t": TenantLoad(running=1)}
    assert shared(items, 9, full, limits) == ["begun"]
    assert shared(items, 9, room, limits) == ["new", "begun"]
    assert shared(items, 9, full) == ["new", "newer", "begun"]


def test_a_job_that_begins_takes_its_place_once() -> None:
    limits = Limits(default=TenantLimits(running=1))
    items = [ready(job, stage=stage, age_s=age) for job, age in (("a", 9), ("b", 8)) for stage in ("text", "decode")]
    chosen = plan(state(items, {"text": 2, "decode": 2}), limits=limits)
    assert {(ref.job_id, ref.stage) for ref in chosen} == {("a", "text"), ("a", "decode")}


def test_the_lift_must_be_positive() -> None:
    with pytest.raises(ValueError, match="lift_s"):
        plan(state([], {}), lift_s=0)


items = st.builds(
    ready,
    st.integers(0, 30).map(str),
    stage=st.sampled_from(STAGES),
    priority=st.integers(-2, 2),
    age_s=st.integers(0, 2000),
    due_s=st.none() | st.integers(-50, 50),
    tenant=st.sampled_from("tu"),
)
queues = st.lists(items, max_size=30, unique_by=lambda item: item.ref)
counts = st.dictionaries(st.sampled_from(STAGES), st.integers(0, 5))
clusters = st.builds(
    lambda queue, slots, busy: ClusterState(
        NOW, queue, [worker(f"w{index}", **taken) for index, taken in enumerate(slots) if taken], busy
    ),
    queues,
    st.lists(counts, max_size=3),
    counts,
)


def _free(cluster: ClusterState, stage: str) -> int:
    return max(sum(w.slots.get(stage, 0) for w in cluster.workers) - cluster.busy.get(stage, 0), 0)


@given(clusters)
def test_every_free_slot_is_used_and_no_other(cluster: ClusterState) -> None:
    chosen = plan(cluster)
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {item.ref for item in cluster.ready}
    taken = Counter(ref.stage for ref in chosen)
    waiting = Counter(item.ref.stage for item in cluster.ready)
    assert {stage: taken[stage] for stage in STAGES} == {s: min(_free(cluster, s), waiting[s]) for s in STAGES}


@given(clusters, st.randoms(use_true_random=False))
def test_the_order_of_the_reading_does_not_matter(cluster: ClusterState, random: Random) -> None:
    shuffled = list(cluster.ready)
    random.shuffle(shuffled)
    assert plan(ClusterState(cluster.now, shuffled, cluster.workers, cluster.busy)) == plan(cluster)


@given(clusters)
def test_of_equals_the_older_goes_first(cluster: ClusterState) -> None:
    chosen = set(plan(cluster))
    for left in cluster.ready:
        for right in cluster.ready:
            same = (left.tenant_id, left.ref.stage, left.priority, left.deadline_at) == (
                right.tenant_id,
                right.ref.stage,
                right.priority,
                right.deadline_at,
            )
            if same and left.created_at < right.created_at and right.ref in chosen:
                assert left.ref in chosen


def test_what_a_leaving_worker_holds_fills_no_slot_of_those_that_stay() -> None:
    """Its slots went with it; else a replica that drains for minutes would keep another one idle."""
    items = [ready("a"), ready("b")]
    staying = replace(state(items, {"denoise": 1}, {"denoise": 1}), leaving={"denoise": 1})
    assert [ref.job_id for ref in plan(staying)] == ["a"]
    assert not plan(replace(staying, leaving={}))
