"""Recording rules: what dashboards and alerts ask often, and the objectives that alerts hold jobs to.

Names say level:what:how, as Prometheus recommends. Labels of replicas are summed away here, so that a fleet's churn of
processes stays out of everything that is kept for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RATE_S = 300
SLOW_S = 30  # a stage that waited longer for its slot was late
JOBS_GOAL = 0.99  # share of the ended jobs, those that were cancelled aside, that were completed
QUEUE_GOAL = 0.95  # share of the stage calls that were dispatched within SLOW_S
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded series."""

    record: str
    expr: str


def quantile(q: float, family: str, by: str, window: str = "5m") -> str:
    """A quantile of a histogram of ours, by some labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate(ray_{family}_bucket[{window}])))"


def _bad_jobs(window: str) -> Recording:
    bad = f'sum(rate(ray_skyreels_jobs_total{{state=~"failed|expired"}}[{window}])) or vector(0)'
    ended = f'sum(rate(ray_skyreels_jobs_total{{state!="cancelled"}}[{window}])) > 0'
    return Recording(f"skyreels:jobs_bad:ratio_rate{window}", f"({bad}) / ({ended})")


def _late_calls(window: str) -> Recording:
    # Ray writes 30.0 where others write 30.
    in_time = f'sum(rate(ray_skyreels_queue_seconds_bucket{{le=~"{SLOW_S}(\\\\.0)?"}}[{window}]))'
    calls = f"sum(rate(ray_skyreels_queue_seconds_count[{window}])) > 0"
    return Recording(f"skyreels:calls_late:ratio_rate{window}", f"1 - {in_time} / ({calls})")


OBJECTIVES: Sequence[Recording] = (
    *(_bad_jobs(window) for window in WINDOWS),
    *(_late_calls(window) for window in WINDOWS),
)

BUSY = "rate(ray_skyreels_group_busy_seconds_total[5m])"
USEFUL = "sum(rate(ray_skyreels_useful_seconds_total[1h])) or vector(0)"
WASTED = "sum(rate(ray_skyreels_wasted_seconds_total[1h])) or vector(0)"

OVERVIEW: Sequence[Recording] = (
    Recording("skyreels:jobs_ended:rate5m", "sum by (state) (rate(ray_skyreels_jobs_total[5m]))"),
    Recording("skyreels:job_seconds:p95_5m", quantile(0.95, "skyreels_job_seconds", "model")),
    Recording("skyreels:queue_seconds:p95_5m", quantile(0.95, "skyreels_queue_seconds", "stage")),
    Recording("skyreels:stage_seconds:p95_5m", quantile(0.95, "skyreels_stage_seconds", "stage")),
    Recording("skyreels:step_seconds:p50_5m", quantile(0.5, "skyreels_step_seconds", "model, resolution, degree")),
    Recording("skyreels:steps:rate5m", "sum by (model, resolution) (rate(ray_skyreels_step_seconds_count[5m]))"),
    Recording("skyreels:group_busy:ratio_rate5m", f"sum by (deployment, replica) ({BUSY})"),
    Recording("skyreels:work_wasted:ratio_rate1h", f"({WASTED}) / ((({USEFUL}) + ({WASTED})) > 0)"),
    Recording("skyreels:store_seconds:p99_5m", quantile(0.99, "skyreels_store_seconds", "operation")),
    Recording("skyreels:handoff_bytes:rate5m", "sum by (path, direction) (rate(ray_skyreels_handoff_bytes_total[5m]))"),
)

GROUPS: dict[str, Sequence[Recording]] = {"skyreels-overview": OVERVIEW, "skyreels-objectives": OBJECTIVES}
