"""What a lease says of the work on its stage."""

from __future__ import annotations

import pytest

from cluster.records import StageCall, StageRef, StageWork
from deployments import leases
from deployments.leases import Lease
from tests.unit.cluster.makers import EPOCH, REQUEST

CALL = StageCall(StageRef("j1", "text"), 1)


class Clock:
    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    return clock


def test_busy_time_is_that_of_computations_and_overlaps_count_once(clock: Clock) -> None:
    lease = Lease(StageWork(CALL, 1, "t", REQUEST, {}, None, EPOCH, None))
    clock.now_s += 5  # waits
    assert lease.beat.busy_s == 0
    with lease.computing():
        clock.now_s += 2
        assert lease.beat.busy_s == 2  # told while it goes on
        with lease.computing():
            clock.now_s += 1
        clock.now_s += 1
    clock.now_s += 5
    with pytest.raises(RuntimeError), lease.computing():
        clock.now_s += 3
        raise RuntimeError
    lease.advance(2, 8)
    assert (lease.beat.step, lease.beat.steps, lease.beat.busy_s) == (2, 8, 7)
