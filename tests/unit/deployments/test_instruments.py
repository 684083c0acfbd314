"""Instruments export the registry's families and keep the values of labels in their domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from ray.serve import metrics

from cluster.deliveries import Backlog, ParcelKind, ParcelState
from cluster.monitoring.families import FAMILIES, LABELS, OTHER
from cluster.records import JobState, StageRef
from cluster.store.attempts import Attempt, Outcome
from cluster.store.base import ClusterState, ReadyStage
from cluster.store.observer import Ended, Retry
from cluster.tenancy import TenantLoad
from deployments import cluster_metrics, telemetry
from deployments.instruments import Counter, Gauge, Histogram, Levels
from tests.unit.cluster.makers import EPOCH, worker

Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Exported:
    """What would leave the process: the last value or the sum of each series."""

    series: dict[Key, float] = field(default_factory=dict)

    def of(self, name: str, **tags: str) -> float:
        return self.series[name, tuple(sorted(tags.items()))]

    def values(self, name: str, label: str) -> set[str]:
        return {dict(tags)[label] for family, tags in self.series if family == name}


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    """Ray's metrics record nothing outside of a cluster; here they do."""
    out = Exported()

    def recording(kind: type, adds: bool, method: str) -> None:
        def record(self: Any, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
            key = (self.info["name"], tuple(sorted((tags or {}).items())))
            assert set(tags or {}) == set(FAMILIES[key[0]].labels)
            out.series[key] = value + (out.series.get(key, 0.0) if adds else 0.0)

        monkeypatch.setattr(kind, method, record)

    recording(metrics.Counter, True, "inc")
    recording(metrics.Counter, True, "_record")
    recording(metrics.Gauge, False, "set")
    recording(metrics.Histogram, True, "observe")
    yield out


def test_an_instrument_is_of_its_family() -> None:
    with pytest.raises(TypeError, match="is a gauge, not a counter"):
        Counter("skyreels_jobs")
    with pytest.raises(KeyError):
        Gauge("skyreels_unknown")
    assert Histogram("skyreels_step_seconds").family is FAMILIES["skyreels_step_seconds"]


def test_a_closed_domain_takes_nothing_else(exported: Exported) -> None:
    counter = Counter("skyreels_dispatched_total")
    for stage in ("denoise", "denoise", "made up", "also made up"):
        counter.inc(tags={"stage": stage})
    assert exported.of("skyreels_dispatched_total", stage="denoise") == 2
    assert exported.of("skyreels_dispatched_total", stage=OTHER) == 2


def test_an_open_domain_takes_the_first_few(exported: Exported) -> None:
    levels = Levels("skyreels_tenant_ready")
    levels.set({(f"tenant-{index}",): 1.0 for index in range(100)})
    most = LABELS["tenant"].most
    assert len(exported.values("skyreels_tenant_ready", "tenant")) == most + 1
    assert exported.of("skyreels_tenant_ready", tenant=OTHER) == 100 - most


def test_a_level_that_is_gone_falls_to_zero(exported: Exported) -> None:
    levels = Levels("skyreels_tenant_ready")
    levels.set({("a",): 3.0, ("b",): 2.0})
    levels.set({("b",): 5.0})
    assert exported.of("skyreels_tenant_ready", tenant="a") == 0
    assert exported.of("skyreels_tenant_ready", tenant="b") == 5


def test_a_counter_never_falls(exported: Exported) -> None:
    counter = Counter("skyreels_group_busy_seconds_total")
    counter.inc(0.0)
    counter.inc(-1.0)
    assert not exported.series
    counter.inc(2.0)
    assert exported.of("skyreels_group_busy_seconds_total") == 2


def test_a_counter_begins_at_zero_without_losing_what_it_counts(exported: Exported) -> None:
    counter = Counter("skyreels_retries_total")
    counter.begin(stage=("text", "denoise"), reason=("released", "made up"))
    assert set(exported.series.values()) == {0.0}
    assert exported.values("skyreels_retries_total", "reason") == {"released", OTHER}
    counter.inc(tags={"stage": "text", "reason": "released"})
    assert exported.of("skyreels_retries_total", stage="text", reason="released") == 1


def attempt(outcome: Outcome, useful_s: float, wasted_s: float, reason: str | None = None) -> Attempt:
    return Attempt("denoise", 0, 0, 1, 1, "w1", 2, useful_s, wasted_s, 9.0, outcome, reason)


def test_what_commits_end_is_counted(exported: Exported) -> None:
    told = telemetry.StoreMetrics(["skyreels-v3-r2v"], ["denoise"])
    assert exported.of("skyreels_jobs_total", state="failed", model="skyreels-v3-r2v") == 0  # there before any has
    assert exported.of("skyreels_wasted_seconds_total", stage="denoise", reason="worker_lost") == 0
    done = Ended("j1", "acme", "skyreels-v3-r2v", JobState.DONE, None, EPOCH, EPOCH + timedelta(seconds=40), None)
    failed = Ended("j2", "acme", "skyreels-v3-r2v", JobState.FAILED, "non_finite", EPOCH, EPOCH, None)
    lost = attempt(Outcome.LOST, 3.0, 5.0, "worker_lost")
    told.committed([attempt(Outcome.DONE, 8.0, 0.0), lost, Retry("denoise", "worker_lost"), done, failed])
    model = "skyreels-v3-r2v"
    assert exported.of("skyreels_jobs_total", state="done", model=model) == 1
    assert exported.of("skyreels_job_seconds", model=model) == 40
    assert exported.of("skyreels_job_failures_total", code="non_finite") == 1
    assert exported.of("skyreels_tenant_jobs_total", tenant="acme", state="failed") == 1
    assert exported.of("skyreels_useful_seconds_total", stage="denoise") == 11
    assert exported.of("skyreels_wasted_seconds_total", stage="denoise", reason="worker_lost") == 5
    assert exported.of("skyreels_retries_total", stage="denoise", reason="worker_lost") == 1
    told.asked("read", 0.25, answered=False)
    assert exported.of("skyreels_store_seconds", operation="read") == 0.25
    assert exported.of("skyreels_store_outages_total", operation="read") == 1


def test_a_group_says_its_degree(exported: Exported) -> None:
    group = telemetry.GroupMetrics("Denoiser", 4)
    group.stepped("skyreels-v3-r2v", "720P", 1.5)
    group.worked(1.5)
    group.broke("hang")
    group.exchanged(30.0)
    group.holds(1, 2, 12.0)
    assert exported.of("skyreels_step_seconds", model="skyreels-v3-r2v", resolution="720P", degree="4") == 1.5
    assert exported.of("skyreels_watchdog_events_total", event="rank_hang") == 1
    assert exported.of("skyreels_group_rebuilds_total", reason="hang") == 1
    assert exported.of("skyreels_model_load_seconds", pool="Denoiser", cause="exchange") == 30
    assert exported.of("skyreels_snapshot_age_seconds") == 12


def test_the_leader_tells_what_the_store_has(exported: Exported) -> None:
    told = cluster_metrics.ClusterMetrics()
    ready = [
        ReadyStage(
            StageRef(f"j{i}", "denoise"), "m", "r2v", 1, "acme", 0, None, EPOCH, EPOCH - timedelta(seconds=10 * i)
        )
        for i in range(3)
    ]
    state = ClusterState(
        now=EPOCH,
        ready=ready,
        workers=[worker("w1", denoise=2, text=1), worker("w2", denoise=2)],
        busy={"denoise": 4},
        loads={"acme": TenantLoad(used_s=90.0)},
    )
    backlog = Backlog({(ParcelKind.WEBHOOK, ParcelState.DEAD): 2}, 7.0)
    told.tell(state, {JobState.QUEUED: 3, JobState.DONE: 1}, backlog)
    assert exported.of("skyreels_stage_slots", stage="denoise") == 4
    assert exported.of("skyreels_stage_ready", stage="denoise") == 3
    assert exported.of("skyreels_stage_ready", stage="text") == 0
    assert exported.of("skyreels_stage_busy", stage="denoise") == 4
    assert exported.of("skyreels_queue_oldest_seconds", stage="denoise") == 20
    assert exported.of("skyreels_tenant_ready", tenant="acme") == 3
    assert exported.of("skyreels_tenant_device_seconds", tenant="acme") == 90
    assert exported.of("skyreels_jobs", state="queued") == 3
    assert exported.of("skyreels_deliveries", kind="webhook", state="dead") == 2
    assert exported.of("skyreels_delivery_oldest_due_seconds") == 7
    told.forget()
    assert not any(exported.series.values())


def test_decisions_of_scaling(exported: Exported) -> None:
    scaling = cluster_metrics.AutoscaleMetrics()
    scaling.decided(pool="Denoiser", replicas=3, direction="up", why="backlog", backlog_s=60.0)
    scaling.decided(pool="Denoiser", replicas=3, direction="hold", why="a whim", backlog_s=50.0)
    assert exported.of("skyreels_autoscale_replicas", pool="Denoiser") == 3
    assert exported.of("skyreels_autoscale_backlog_seconds", pool="Denoiser") == 50
    assert exported.of("skyreels_autoscale_decisions_total", pool="Denoiser", direction="up", why="backlog") == 1
    assert exported.of("skyreels_autoscale_decisions_total", pool="Denoiser", direction="hold", why=OTHER) == 1
