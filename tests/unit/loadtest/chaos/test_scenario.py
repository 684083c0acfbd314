"""The seed decides everything; the plan holds every kind of thing."""

from __future__ import annotations

import itertools

from loadtest.chaos import scenario
from loadtest.chaos.scenario import KINDS, Fate, Fault


def test_a_seed_is_a_scenario() -> None:
    plans = list(scenario.jobs(3, 200, tenants=3))
    assert plans == list(scenario.jobs(3, 200, tenants=3))
    assert plans != list(scenario.jobs(4, 200, tenants=3))
    hurts = list(itertools.islice(scenario.hurts(3, every_s=10), 100))
    assert hurts == list(itertools.islice(scenario.hurts(3, every_s=10), 100))
    assert all(5 <= hurt.wait_s <= 15 for hurt in hurts)
    assert {hurt.fault for hurt in hurts} == {Fault.KILL, Fault.STOP}


def test_many_jobs_hold_everything() -> None:
    plans = list(scenario.jobs(1, 1000, tenants=3))
    assert {plan.tenant for plan in plans} == {0, 1, 2}
    assert {plan.fate for plan in plans} == set(Fate)
    assert {plan.n for plan in plans} == {1, 2, 3}
    assert any(plan.hang_up_s for plan in plans)
    assert any(plan.trespass for plan in plans)
    assert len({plan.once for plan in plans}) == len(plans)
    assert len({(plan.prompt, plan.seed, plan.seconds) for plan in plans}) < 20  # most have twins


def test_every_kind_of_chaos_does_what_it_says() -> None:
    for kind in KINDS.values():
        hurts = itertools.islice(scenario.hurts(1, every_s=10, faults=kind.faults), 200)
        assert {hurt.fault for hurt in hurts} == kind.faults.keys()
    assert set.union(*(set(kind.faults) for kind in KINDS.values())) == set(Fault)
    assert [name for name, kind in KINDS.items() if kind.own] == ["drains", "database"]
