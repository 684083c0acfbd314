"""Where a model's calls go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cluster.policy.homes import homes
from cluster.records import StageRef, Worker
from cluster.store.base import ClusterState, ReadyStage
from tests.unit.cluster.makers import EPOCH, worker

HERE, THERE = "here", "there"  # models


def group(name: str, *loaded: str) -> Worker:
    return replace(worker(name, denoise=2), loaded=loaded)


def call(model: str, number: int = 0, stage: str = "denoise") -> ReadyStage:
    return ReadyStage(StageRef(f"job{number}", stage), model, "r2v", 1, "t", 0, None, EPOCH, EPOCH)


def routed(groups: list[Worker], held: Mapping[str, int], *ready: ReadyStage) -> list[bool]:
    """Which of the calls go to a holder of their model."""
    state = ClusterState(EPOCH, ready, groups, {}, held=held)
    found = homes(state, [item.ref for item in ready])
    assert all(found[item.ref] == item.model for item in ready if item.ref in found)
    return [item.ref in found for item in ready]


@pytest.mark.parametrize(
    ("held", "home"),
    [({}, True), ({"b": 1}, True), ({"a": 1}, False), ({"a": 1, "b": 1}, True), ({"a": 2, "b": 1}, True)],
    ids=["all idle", "another works", "only another is idle", "none is idle", "none is idle and the holder is full"],
)
def test_a_holder_is_left_only_for_one_that_is_idle(held: Mapping[str, int], home: bool) -> None:
    assert routed([group("a", HERE), group("b", THERE)], held, call(HERE)) == [home]


def test_calls_of_one_plan_count() -> None:
    groups = [group("a", HERE), group("b", THERE)]
    assert routed(groups, {}, call(HERE, 1), call(HERE, 2), call(HERE, 3)) == [True, False, True]


def test_each_model_has_its_own_homes() -> None:
    groups = [group("a", HERE), group("b", THERE)]
    assert routed(groups, {}, call(HERE, 1), call(THERE, 2)) == [True, True]


def test_where_there_is_no_choice_nothing_is_said() -> None:
    assert routed([group("a", HERE)], {}, call(HERE)) == [False]
    assert routed([group("a"), group("b")], {}, call(HERE)) == [False]
    text = [worker("a", text=1), worker("b", text=1)]
    assert routed(text, {}, call(HERE, stage="text")) == [False]
