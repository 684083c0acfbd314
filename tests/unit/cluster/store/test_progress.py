"""Progress is told when a client would see it grow, and not more often than once a second."""

from __future__ import annotations

from datetime import timedelta

from cluster.records import Beat, StageCall, StageRef
from cluster.store.clients import new_stages
from cluster.store.lifecycle import Lifecycle
from cluster.store.rows import JobRow
from cluster.wiring import graph
from tests.unit.cluster.makers import EPOCH


def test_progress_is_told_at_a_bounded_rate() -> None:
    life = Lifecycle(JobRow("j"), new_stages(graph("r2v", 1)), EPOCH)
    life.created()
    text = StageRef("j", "text")
    call = life.dispatch(text)
    assert call == StageCall(text, 1)
    life.claim(call, "w", 60)

    def beat(at_s: float, step: int) -> None:
        life.now = EPOCH + timedelta(seconds=at_s)
        life.beat(Beat(call, step, 100), "w", 60)

    beat(0.5, 40)  # too early
    beat(1.0, 50)
    beat(1.5, 100)  # too soon after
    beat(2.5, 50)  # nothing to tell: what is shown never falls
    told = [data for kind, data in life.events if kind == "progress"]
    assert [(data["stage"], data["step"], data["steps"]) for data in told] == [("text", 50, 100), ("text", 50, 100)]
    shown = [float(str(data["progress"])) for data in told]
    assert 0 < shown[0] < shown[1] == life.job.progress
    beat(9.0, 50)
    assert sum(kind == "progress" for kind, _ in life.events) == len(told)
