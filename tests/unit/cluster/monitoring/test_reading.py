"""An endpoint's text becomes numbers, and two readings become rates."""

from __future__ import annotations

import pytest

from cluster.monitoring.reading import overview, read

NODE = 'NodeAddress="n1",WorkerId="w1"'


def text(steps: int, busy_s: float, done: int, lost: int = 0) -> str:
    return f"""# HELP ray_other_total something of Ray's
ray_other_total{{x="1"}} 5.0
ray_skyreels_jobs{{state="done",WorkerId="a"}} {done}.0
ray_skyreels_jobs{{state="done",WorkerId="b"}} 0.0
ray_skyreels_jobs_total{{state="done",model="m",{NODE}}} {done}.0
ray_skyreels_stage_slots{{stage="denoise",{NODE}}} 2.0
ray_skyreels_stage_ready{{stage="denoise",{NODE}}} 7.0
ray_skyreels_queue_seconds_count{{stage="denoise",{NODE}}} {done}.0
ray_skyreels_queue_seconds_sum{{stage="denoise",{NODE}}} {done * 3}.0
ray_skyreels_queue_seconds_bucket{{stage="denoise",le="+Inf",{NODE}}} {done}.0
ray_skyreels_group_residents{{deployment="Denoiser",replica="r1"}} 1.0
ray_skyreels_group_places{{deployment="Denoiser",replica="r1"}} 2.0
ray_skyreels_group_busy_seconds_total{{deployment="Denoiser",replica="r1"}} {busy_s}
ray_skyreels_step_seconds_count{{model="m",resolution="720P",degree="4",WorkerId="w1"}} {steps}.0
ray_skyreels_step_seconds_count{{model="m",resolution="720P",degree="4",WorkerId="w2"}} {steps}.0
ray_skyreels_lost_total{{stage="denoise",{NODE}}} {lost}.0
"""


def test_rates_come_from_two_readings() -> None:
    view = overview(read([text(10, 5.0, 4)], 100.0), read([text(30, 9.0, 6, lost=1)], 110.0))
    assert view.window_s == 10
    assert view.jobs == {"done": 6}  # what the leader says, not the zero of another Scheduler
    assert view.steps_per_s == {("m", "720P", "4"): pytest.approx(4.0)}
    assert view.ended_per_s == {"done": pytest.approx(0.2)}
    (stage,) = view.stages
    assert (stage.name, stage.slots, stage.busy, stage.ready) == ("denoise", 2, 0, 7)
    assert stage.queue_s == pytest.approx(3.0)
    (group,) = view.groups
    assert (group.residents, group.places, group.busy) == (1, 2, pytest.approx(0.4))
    assert view.troubles == {"lost": 1}


def test_several_nodes_add_up() -> None:
    first, second = read([text(1, 1.0, 1), text(2, 1.0, 1)], 0.0), read([text(5, 1.0, 1), text(8, 1.0, 1)], 10.0)
    assert overview(first, second).steps_per_s == {("m", "720P", "4"): pytest.approx(2.0)}


def test_a_restarted_process_makes_no_negative_rate() -> None:
    view = overview(read([text(50, 20.0, 4)], 0.0), read([text(3, 1.0, 4)], 10.0))
    assert view.steps_per_s == {("m", "720P", "4"): 0.0}
    assert view.groups[0].busy == 0.0


def test_one_reading_has_no_rates() -> None:
    once = read([text(10, 5.0, 4)], 1.0)
    view = overview(once, once)
    assert view.steps_per_s == {}
    assert view.groups[0].busy is None
    assert view.stages[0].queue_s is None


def test_a_stage_that_waits_is_shown_although_nobody_has_slots_for_it() -> None:
    view = overview(*[read(['ray_skyreels_stage_ready{stage="decode"} 3.0\n'], 0.0)] * 2)
    (stage,) = view.stages
    assert (stage.name, stage.slots, stage.ready) == ("decode", 0, 3)


def test_an_endpoint_without_us() -> None:
    nothing = read(["ray_other 1.0\n", ""], 0.0)
    assert overview(nothing, nothing).stages == []
