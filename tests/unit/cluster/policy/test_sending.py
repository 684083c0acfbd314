from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.policy.sending import REMEMBERED, Receivers, backoff_s


@given(attempt=st.integers(1, 10_000), dice=st.floats(0, 1))
def test_waits_double_up_to_the_most_and_are_spread(attempt: int, dice: float) -> None:
    wait_s = backoff_s(attempt, first_s=2, most_s=100, dice=dice)
    full_s = min(2 * 2 ** min(attempt - 1, 10), 100)
    assert full_s / 2 <= wait_s <= full_s


def test_a_receiver_earns_more_sends_at_once() -> None:
    receivers = Receivers(concurrency=8, per_host=3)
    assert receivers.healthy() == (8, {})
    receivers.begin("a")
    assert receivers.healthy() == (7, {"a": 0})
    receivers.end("a", well=True)
    assert receivers.healthy() == (8, {"a": 3})
    receivers.begin("a")
    assert receivers.healthy() == (7, {"a": 2})


def test_who_failed_gets_one_send_until_it_answers_well() -> None:
    receivers = Receivers(concurrency=8, per_host=3)
    receivers.begin("a")
    receivers.end("a", well=False)
    assert receivers.healthy() == (8, {"a": 0})
    assert receivers.failing() == (4, {"a": 1})
    receivers.begin("a")
    assert receivers.failing() == (3, {"a": 0})
    receivers.end("a", well=True)
    assert receivers.failing()[0] == 0
    assert receivers.healthy() == (8, {"a": 3})


def test_all_who_failed_share_half_of_the_slots() -> None:
    receivers = Receivers(concurrency=4, per_host=4)
    for host in "abcdef":
        receivers.begin(host)
        receivers.end(host, well=False)
    for host in "ab":
        receivers.begin(host)
    assert receivers.failing()[0] == 0
    free, room = receivers.healthy()
    assert free == 2
    assert all(room[host] == 0 for host in "abcdef")
    for host in "xy":
        receivers.begin(host)
    assert receivers.healthy()[0] == 0


def test_what_is_remembered_is_bounded() -> None:
    receivers = Receivers(concurrency=4, per_host=4)
    for index in range(REMEMBERED + 10):
        receivers.begin(f"h{index}")
        receivers.end(f"h{index}", well=index % 2 == 0)
    assert len(receivers.failing()[1]) == REMEMBERED
