from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.policy.autoscale import Cause, Decision, PoolSize, StageLoad, autoscale

FEEDS = [("text", "denoise"), ("condition", "denoise"), ("denoise", "decode")]
STAGES = ("text", "condition", "denoise", "decode")


def size(name: str, least: int = 0, most: int = 8, lanes: int | None = None, **slots: int) -> PoolSize:
    return PoolSize(name, slots, least, most, {} if lanes is None else dict.fromkeys(slots, lanes))


def pools(least: int = 0, most: int = 8) -> list[PoolSize]:
    return [
        size("Text", least, most, text=1),
        size("Denoiser", least, most, lanes=1, denoise=2),
        size("Vae", least, most, condition=1, decode=1),
    ]


def targets(*loads: StageLoad, least: int = 0, most: int = 8, backlog_s: float = 60) -> dict[str, int]:
    decided = autoscale(pools(least, most), loads, FEEDS, backlog_s=backlog_s)
    return {name: decision.target for name, decision in decided.items()}


def test_nothing_to_do_is_nobody() -> None:
    assert targets() == {"Text": 0, "Denoiser": 0, "Vae": 0}
    assert targets(StageLoad("denoise", call_s=30.0)) == {"Text": 0, "Denoiser": 0, "Vae": 0}


def test_the_first_job_starts_every_pool_on_its_way_at_once() -> None:
    assert targets(StageLoad("text", 1), StageLoad("condition", 1)) == {"Text": 1, "Denoiser": 1, "Vae": 1}


def test_pools_behind_the_work_stop_before_those_in_front_of_it() -> None:
    assert targets(StageLoad("denoise", 0, 1, 0.5)) == {"Text": 0, "Denoiser": 1, "Vae": 1}
    assert targets(StageLoad("decode", 0, 1, 1.0)) == {"Text": 0, "Denoiser": 0, "Vae": 1}


def test_calls_count_until_their_time_is_known() -> None:
    assert targets(StageLoad("denoise", 8))["Denoiser"] == 4  # two slots each
    assert targets(StageLoad("denoise", 8, call_s=30.0))["Denoiser"] == 4  # 240 s of work in 60
    assert targets(StageLoad("denoise", 8, call_s=7.5))["Denoiser"] == 1
    assert targets(StageLoad("denoise", 8, call_s=60.0))["Denoiser"] == 8


def test_residents_take_turns_so_slots_do_not_make_a_replica_faster() -> None:
    load = StageLoad("denoise", 4, call_s=60.0)
    alone, shared = size("P", lanes=1, denoise=4), size("P", denoise=4)
    assert autoscale([alone], [load], [])["P"].target == 4
    assert autoscale([shared], [load], [])["P"].target == 1


def test_what_is_done_of_a_running_call_is_no_work() -> None:
    assert targets(StageLoad("denoise", 0, 4, 4.0, 60.0))["Denoiser"] == 4
    assert targets(StageLoad("denoise", 0, 4, 2.1, 60.0))["Denoiser"] == 3


def test_calls_under_way_keep_their_slots() -> None:
    (decision,) = autoscale([size("P", text=1)], [StageLoad("text", 0, 3, 0.1, 1.0)], []).values()
    assert (decision.target, decision.cause) == (3, Cause.STEADY)


def test_work_on_its_way_counts_no_faster_than_it_can_arrive() -> None:
    """One denoiser of 60 s a call sends one call a minute: one decoder of 5 s is enough, whatever waits before it."""
    flood = (StageLoad("denoise", 1000, call_s=60.0), StageLoad("decode", call_s=5.0))
    one = [size("Denoiser", 1, 1, lanes=1, denoise=2), size("Vae", 0, 50, decode=1)]
    assert autoscale(one, flood, FEEDS)["Vae"].target == 1
    many = [size("Denoiser", 1, 60, lanes=1, denoise=2), size("Vae", 0, 50, decode=1)]
    assert autoscale(many, flood, FEEDS)["Vae"].target == 5  # sixty of them send one a second


def test_results_of_several_sources_are_not_added_up() -> None:
    decided = autoscale(pools(), [StageLoad("text", 3), StageLoad("condition", 2)], FEEDS)
    assert "0 calls here, 3 on their way" in decided["Denoiser"].why


def test_every_decision_says_why() -> None:
    decided = autoscale(pools(1, 2), [StageLoad("denoise", 20, 1, 1.0, 30.0)], FEEDS)
    told = {name: (one.target, one.wanted, one.cause) for name, one in decided.items()}
    assert told == {"Text": (1, 0, Cause.MINIMUM), "Denoiser": (2, 11, Cause.MAXIMUM), "Vae": (1, 1, Cause.COUPLED)}
    assert decided["Denoiser"].why == "21 calls here, 0 on their way, 630 s of work; 11 wanted, 2 is the most"
    assert decided["Text"].why == "idle; 1 is the least"
    assert [one.work_s for one in decided.values()] == [0.0, 630.0, 0.0]


@pytest.mark.parametrize(("feeds", "backlog_s"), [([("text", "decode"), ("decode", "text")], 60.0), ([], 0.0)])
def test_it_refuses_what_has_no_answer(feeds: list[tuple[str, str]], backlog_s: float) -> None:
    with pytest.raises(ValueError, match=r"cycle|positive"):
        autoscale(pools(), [], feeds, backlog_s=backlog_s)


# -- whatever comes --------------------------------------------------------------------------------------------------
@st.composite
def load(draw: st.DrawFn, stage: str) -> StageLoad:
    running = draw(st.integers(0, 20))
    seconds = st.one_of(st.none(), st.floats(0.01, 1000))
    return StageLoad(stage, draw(st.integers(0, 500)), running, running * draw(st.floats(0, 1)), draw(seconds))


@st.composite
def bounded(draw: st.DrawFn) -> list[PoolSize]:
    sizes = []
    for pool in pools():
        least = draw(st.integers(0, 5))
        sizes.append(replace(pool, least=least, most=draw(st.integers(max(least, 1), 40))))
    return sizes


LOADS = st.tuples(*(load(stage) for stage in STAGES))
BACKLOG = st.floats(1, 600)


def calls_of(pool: PoolSize, loads: tuple[StageLoad, ...]) -> int:
    return sum(one.ready + one.running for one in loads if one.stage in pool.slots)


@given(bounded(), LOADS, BACKLOG)
def test_targets_keep_their_bounds_and_the_work_moving(
    sizes: list[PoolSize], loads: tuple[StageLoad, ...], backlog_s: float
) -> None:
    decided = autoscale(sizes, loads, FEEDS, backlog_s=backlog_s)
    assert decided == autoscale(sizes, loads[::-1], FEEDS[::-1], backlog_s=backlog_s)
    work_is_before = False
    for pool in (sizes[0], sizes[1], sizes[2]):  # in the order of the stages
        decision = decided[pool.name]
        calls = calls_of(pool, loads)
        assert pool.least <= decision.target <= pool.most
        assert decision.why
        work_is_before = work_is_before or calls > 0 or (pool.name == "Denoiser" and loads[1].ready > 0)
        if work_is_before:
            assert decision.target >= 1
        held = max(ceil(one.running / pool.slots[one.stage]) for one in loads if one.stage in pool.slots)
        assert decision.target >= min(held, pool.most)
        assert (decision.cause is Cause.MAXIMUM) == (decision.wanted > pool.most)


@given(bounded(), LOADS, BACKLOG)
def test_a_pool_below_its_most_can_do_its_work_in_time(
    sizes: list[PoolSize], loads: tuple[StageLoad, ...], backlog_s: float
) -> None:
    for pool in sizes:
        decision = autoscale(sizes, loads, FEEDS, backlog_s=backlog_s)[pool.name]
        if decision.target == pool.most or decision.target >= calls_of(pool, loads):
            continue
        needed = 0.0
        for one in loads:
            if one.stage in pool.slots and one.call_s is not None:
                lanes = pool.lanes.get(one.stage, pool.slots[one.stage])
                needed += (one.ready + one.left) * one.call_s / lanes
            elif one.stage in pool.slots:
                needed += (one.ready + one.running) / pool.slots[one.stage] * backlog_s
        assert decision.target * backlog_s >= needed * (1 - 1e-6)


@given(bounded(), LOADS, BACKLOG, st.sampled_from(STAGES), st.integers(1, 100))
def test_more_work_of_a_pool_never_makes_it_smaller(
    sizes: list[PoolSize], loads: tuple[StageLoad, ...], backlog_s: float, stage: str, more: int
) -> None:
    grown = tuple(replace(one, ready=one.ready + more) if one.stage == stage else one for one in loads)
    (pool,) = (pool for pool in sizes if stage in pool.slots)

    def target(loads: tuple[StageLoad, ...]) -> int:
        decided: Decision = autoscale(sizes, loads, FEEDS, backlog_s=backlog_s)[pool.name]
        return decided.target

    assert target(grown) >= target(loads)


@given(bounded())
def test_without_work_every_pool_goes_back_to_its_least(sizes: list[PoolSize]) -> None:
    idle = autoscale(sizes, [StageLoad(stage, call_s=1.0) for stage in STAGES], FEEDS)
    assert {name: one.target for name, one in idle.items()} == {pool.name: pool.least for pool in sizes}
