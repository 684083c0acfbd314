from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.policy.residents import Candidate, next_step
from tests.unit.cluster.makers import EPOCH

NOW = 10_000.0


def candidate(
    key: str, *, priority: int = 0, due_s: float | None = None, age_s: float = 0, waited_s: float = 0
) -> Candidate:
    due = None if due_s is None else EPOCH + timedelta(seconds=due_s)
    return Candidate(key, priority, due, EPOCH - timedelta(seconds=age_s), NOW - waited_s)


def order(*candidates: Candidate, lift_s: float = 300) -> list[str]:
    """All of them, the chosen one leaving each time."""
    left, keys = list(candidates), []
    while key := next_step(left, NOW, lift_s=lift_s):
        keys.append(key)
        left = [one for one in left if one.key != key]
    return keys


def test_priority_then_deadline_then_age_then_key() -> None:
    assert order(
        candidate("b"),
        candidate("a"),
        candidate("old", age_s=100),
        candidate("due later", due_s=60),
        candidate("due soon", due_s=30),
        candidate("urgent", priority=1),
    ) == ["urgent", "due soon", "due later", "old", "a", "b"]


def test_nothing_to_do() -> None:
    assert next_step([], NOW) is None


def test_waiting_lifts_by_one_class_per_interval() -> None:
    urgent = candidate("urgent", priority=2)
    assert order(candidate("waiting", waited_s=119), urgent, lift_s=60)[0] == "urgent"
    assert order(candidate("waiting", waited_s=120, age_s=1), urgent, lift_s=60)[0] == "waiting"


def test_equals_do_not_take_turns() -> None:
    older, younger = candidate("older", age_s=5), candidate("younger", waited_s=250)
    assert next_step([older, younger], NOW) == "older"


def test_the_interval_must_be_positive() -> None:
    with pytest.raises(ValueError, match="lift_s"):
        next_step([], NOW, lift_s=0)


candidates = st.lists(
    st.builds(
        candidate,
        st.text("abc", min_size=1, max_size=4),
        priority=st.integers(-3, 3),
        due_s=st.none() | st.floats(-100, 100),
        age_s=st.floats(0, 1000),
        waited_s=st.floats(0, 1000),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.key,
)


@given(candidates, st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order(items: list[Candidate], random: Random) -> None:
    shuffled = items.copy()
    random.shuffle(shuffled)
    assert next_step(items, NOW) == next_step(shuffled, NOW)


@given(
    priorities=st.lists(st.integers(-2, 2), min_size=2, max_size=5),
    due_s=st.lists(st.none() | st.floats(0, 100), min_size=5, max_size=5),
    step_s=st.floats(1, 20),
)
def test_the_wait_between_two_steps_is_bounded(priorities: list[int], due_s: list[float | None], step_s: float) -> None:
    """Endless jobs: nobody waits longer than the lift to the top and one step of everybody else."""
    lift_s = 100.0
    limits = {
        f"job {index}": lift_s * (max(priorities) - priority + 1) + len(priorities) * step_s
        for index, priority in enumerate(priorities)
    }
    served = dict.fromkeys(limits, 0.0)
    now = 0.0
    while now < 20 * lift_s:
        items = [
            Candidate(key, priority, None if due is None else EPOCH + timedelta(seconds=due), EPOCH, served[key])
            for key, priority, due in zip(limits, priorities, due_s, strict=False)
        ]
        chosen = next_step(items, now, lift_s=lift_s)
        assert chosen is not None
        now += step_s
        served[chosen] = now
        assert all(now - at <= limits[key] for key, at in served.items())
