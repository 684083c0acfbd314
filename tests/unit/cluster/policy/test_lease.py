from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.policy.lease import Grace


def test_a_new_observer_waits_one_time_to_live() -> None:
    grace = Grace(10.0)
    assert grace.reap_from is None
    assert not grace.may_reap(1e9)
    grace = grace.contact(100.0)
    assert grace.reap_from == 110.0
    assert not grace.contact(109.9).may_reap(109.9)
    assert grace.contact(110.0).may_reap(110.0)


def test_an_outage_starts_the_wait_again() -> None:
    grace = Grace(10.0).contact(0.0).contact(10.0)
    assert grace.may_reap(10.0)
    assert not grace.outage().may_reap(11.0)
    back = grace.outage().contact(30.0)
    assert not back.may_reap(39.0)
    assert back.may_reap(40.0)


def test_a_long_silence_counts_as_an_outage() -> None:
    grace = Grace(10.0).contact(0.0).contact(10.0)
    assert grace.contact(20.0).may_reap(20.0)
    assert not grace.contact(20.1).may_reap(20.1)


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=30))
def test_nothing_is_reaped_before_a_whole_time_to_live_of_contact(steps: list[tuple[float, bool]]) -> None:
    ttl_s, at, grace, since = 10.0, 0.0, Grace(10.0), None
    for pause, answered in steps:
        at += pause
        if not answered:
            grace, since = grace.outage(), None
        else:
            grace = grace.contact(at)
            since = at if since is None else since
            if grace.may_reap(at):
                assert at - since >= ttl_s
