"""What each dashboard shows: panels as data, without Grafana's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.monitoring.alert import Needs
from cluster.monitoring.rules import quantile

RATE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are named."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph. `unit` is Grafana's."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    help: str = ""
    needs: Needs = ""
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page."""

    name: str
    title: str
    panels: Sequence[Panel]


def _rate(family: str, by: str) -> Query:
    return Query(
        f"sum by ({by}) (rate(ray_{family}[{RATE}]))", " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    )


def _level(family: str, by: str, how: str = "max") -> Query:
    return Query(f"{how} by ({by}) (ray_{family})", " ".join(f"{{{{{label}}}}}" for label in by.split(", ")))


def _quantiles(family: str, by: str, *qs: float) -> tuple[Query, ...]:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return tuple(Query(quantile(q, family, by, RATE), f"p{q * 100:g} {legend}") for q in qs)


OVERVIEW = Dashboard(
    "skyreels-overview",
    "SkyReels / Overview",
    (
        Panel("Jobs now", (_level("skyreels_jobs", "state"),), stacked=True),
        Panel("Jobs that end", (Query("skyreels:jobs_ended:rate5m", "{{state}}"),), "ops"),
        Panel("Time from creation to completion", _quantiles("skyreels_job_seconds", "model", 0.5, 0.95), "s"),
        Panel(
            "Error budget of jobs: share that failed",
            tuple(Query(f"skyreels:jobs_bad:ratio_rate{window}", window) for window in ("5m", "1h", "6h", "3d")),
            "percentunit",
        ),
        Panel(
            "Stage calls dispatched too late",
            tuple(Query(f"skyreels:calls_late:ratio_rate{window}", window) for window in ("5m", "1h", "6h", "3d")),
            "percentunit",
        ),
        Panel(
            "Waiting and slots",
            (
                Query("max by (stage) (ray_skyreels_stage_ready)", "{{stage}} waiting"),
                Query("max by (stage) (ray_skyreels_stage_slots)", "{{stage}} slots"),
            ),
        ),
        Panel("Denoising steps", (Query("skyreels:steps:rate5m", "{{model}} {{resolution}}"),), "ops"),
        Panel(
            "Busy share of groups",
            (Query("skyreels:group_busy:ratio_rate5m", "{{deployment}} {{replica}}"),),
            "percentunit",
        ),
        Panel("Who leads", (Query("sum(ray_skyreels_scheduler_leading)", "Schedulers that lead"),)),
        Panel(
            "Status of the application",
            (Query('min(ray_serve_application_status{application="skyreels"})', "6 = runs"),),
        ),
        Panel(
            "RayService ready",
            (Query('max by (name) (kuberay_service_condition_ready{condition="true"})', "{{name}}"),),
            needs="kubernetes",
        ),
        Panel(
            "Nodes that are pending",
            (Query("sum by (node_type) (ray_cluster_pending_nodes)", "{{node_type}}"),),
            needs="kubernetes",
        ),
    ),
)

STAGES = Dashboard(
    "skyreels-stages",
    "SkyReels / Stages",
    (
        Panel("Time in the queue", _quantiles("skyreels_queue_seconds", "stage", 0.5, 0.95), "s"),
        Panel("Oldest call that waits", (_level("skyreels_queue_oldest_seconds", "stage"),), "s"),
        Panel("Time of a stage call", _quantiles("skyreels_stage_seconds", "stage", 0.5, 0.95), "s"),
        Panel("Calls that run", (_level("skyreels_stage_busy", "stage"),)),
        Panel("Time of a step", _quantiles("skyreels_step_seconds", "model, resolution, degree", 0.5, 0.95), "s"),
        Panel("Calls dispatched", (_rate("skyreels_dispatched_total", "stage"),), "ops"),
        Panel("Parts of a boundary", _quantiles("skyreels_boundary_seconds", "part", 0.5, 0.95), "s"),
        Panel("Hand-off between stages", (_rate("skyreels_handoff_bytes_total", "path, direction"),), "Bps"),
        Panel("Copies made by hand-offs", (_rate("skyreels_handoff_copies_total", "path"),), "ops"),
        Panel("Encodings, by where they were found", (_rate("skyreels_cache_lookups_total", "stage, found"),), "ops"),
        Panel(
            "Encodings kept",
            (
                Query("sum by (deployment) (ray_skyreels_cache_memory_bytes)", "{{deployment}} memory"),
                Query("max(ray_skyreels_cache_store_bytes)", "store"),
            ),
            "bytes",
        ),
        Panel(
            "Encodings removed",
            (Query(f"sum (rate(ray_skyreels_cache_evictions_total[{RATE}]))", "removed"),),
            "ops",
        ),
        Panel("Hand-off values kept", (Query("max(ray_skyreels_hint_bytes)", "kept for readers"),), "bytes"),
        Panel(
            "Residents and places of groups",
            (
                Query("sum by (deployment) (ray_skyreels_group_residents)", "{{deployment}} residents"),
                Query("sum by (deployment) (ray_skyreels_group_places)", "{{deployment}} places"),
            ),
        ),
        Panel("Work that is in no snapshot", (_level("skyreels_snapshot_age_seconds", "deployment"),), "s"),
        Panel(
            "Rebuilds and watchdog",
            (_rate("skyreels_group_rebuilds_total", "reason"), _rate("skyreels_watchdog_events_total", "event")),
            "ops",
        ),
        Panel("Stages that were repeated", (_rate("skyreels_retries_total", "stage, reason"),), "ops"),
        Panel(
            "Calls that failed or were lost",
            (_rate("skyreels_stage_failures_total", "stage, code"), _rate("skyreels_lost_total", "stage")),
            "ops",
        ),
        Panel(
            "Time until weights are loaded",
            (
                Query(
                    "sum by (pool, cause) (ray_skyreels_model_load_seconds_sum)"
                    " / sum by (pool, cause) (ray_skyreels_model_load_seconds_count)",
                    "{{pool}} {{cause}}",
                ),
            ),
            "s",
        ),
        Panel("Job store", _quantiles("skyreels_store_seconds", "operation", 0.5, 0.99), "s"),
        Panel("Job store: no answer", (_rate("skyreels_store_outages_total", "operation"),), "ops"),
        Panel("Replicas that scaling asks for", (_level("skyreels_autoscale_replicas", "pool"),)),
        Panel("Work that scaling sees", (_level("skyreels_autoscale_backlog_seconds", "pool"),), "s"),
        Panel(
            "Scaling decisions",
            (_rate("skyreels_autoscale_decisions_total", "pool, direction, why"),),
            "ops",
        ),
    ),
)

JOBS = Dashboard(
    "skyreels-jobs",
    "SkyReels / Jobs and tenants",
    (
        Panel("Jobs that ended, by model", (_rate("skyreels_jobs_total", "model, state"),), "ops"),
        Panel("Jobs that failed, by reason", (_rate("skyreels_job_failures_total", "code"),), "ops"),
        Panel("Jobs that ended, by tenant", (_rate("skyreels_tenant_jobs_total", "tenant, state"),), "ops"),
        Panel("Waiting calls, by tenant", (_level("skyreels_tenant_ready", "tenant"),), stacked=True),
        Panel("Device time that waiting tenants have had", (_level("skyreels_tenant_device_seconds", "tenant"),), "s"),
        Panel("Device time that was of use", (_rate("skyreels_useful_seconds_total", "stage"),), "s", stacked=True),
        Panel("Work thrown away", (_rate("skyreels_wasted_seconds_total", "stage, reason"),), "s"),
        Panel("Share thrown away", (Query("skyreels:work_wasted:ratio_rate1h", "of the last hour"),), "percentunit"),
        Panel("Attempts to deliver", (_rate("skyreels_deliveries_total", "kind, outcome"),), "ops"),
        Panel("Time of a delivery", _quantiles("skyreels_delivery_seconds", "kind", 0.5, 0.95), "s"),
        Panel("Deliveries not made", (_level("skyreels_deliveries", "kind, state"),)),
        Panel("Oldest due delivery", (Query("max(ray_skyreels_delivery_oldest_due_seconds)", "waits"),), "s"),
        Panel(
            "HTTP requests",
            (Query(f"sum by (method) (rate(ray_serve_num_http_requests_total[{RATE}]))", "{{method}}"),),
            "ops",
        ),
        Panel(
            "HTTP latency",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le, method) "
                    f"(rate(ray_serve_http_request_latency_ms_bucket[{RATE}])))",
                    "p95 {{method}}",
                ),
            ),
            "ms",
        ),
    ),
)

GPU = Dashboard(
    "skyreels-gpu",
    "SkyReels / GPU and nodes",
    (
        Panel(
            "GPU utilisation",
            (Query("max by (ip, GpuIndex) (ray_node_gpus_utilization)", "{{ip}} {{GpuIndex}}"),),
            "percent",
            needs="gpu",
        ),
        Panel(
            "GPU memory",
            (
                Query(
                    "max by (ip, GpuIndex) (ray_node_gram_used / (ray_node_gram_used + ray_node_gram_available))",
                    "{{ip}} {{GpuIndex}}",
                ),
            ),
            "percentunit",
            needs="gpu",
        ),
        Panel(
            "GPU power",
            (Query("max by (Hostname, gpu) (DCGM_FI_DEV_POWER_USAGE)", "{{Hostname}} {{gpu}}"),),
            "watt",
            needs="gpu",
        ),
        Panel(
            "GPU temperature",
            (Query("max by (Hostname, gpu) (DCGM_FI_DEV_GPU_TEMP)", "{{Hostname}} {{gpu}}"),),
            "celsius",
            needs="gpu",
        ),
        Panel(
            "Last XID", (Query("max by (Hostname, gpu) (DCGM_FI_DEV_XID_ERRORS)", "{{Hostname}} {{gpu}}"),), needs="gpu"
        ),
        Panel(
            "Row remaps that failed",
            (Query("max by (Hostname, gpu) (DCGM_FI_DEV_ROW_REMAP_FAILURE)", "{{Hostname}} {{gpu}}"),),
            needs="gpu",
        ),
        Panel("Busy time of groups", (_rate("skyreels_group_busy_seconds_total", "deployment"),), "s"),
        Panel(
            "Memory of nodes", (Query("max by (ip) (ray_node_mem_used / ray_node_mem_total)", "{{ip}}"),), "percentunit"
        ),
        Panel("CPU of nodes", (Query("max by (ip) (ray_node_cpu_utilization)", "{{ip}}"),), "percent"),
        Panel(
            "Object store", (Query("max by (NodeAddress) (ray_object_store_used_memory)", "{{NodeAddress}}"),), "bytes"
        ),
        Panel(
            "Spilled to disk",
            (Query('max by (NodeAddress) (ray_spill_manager_objects_bytes{State="Spilled"})', "{{NodeAddress}}"),),
            "bytes",
        ),
        Panel("Placement groups", (Query("sum by (State) (ray_placement_groups)", "{{State}}"),)),
        Panel(
            "Weights missing on nodes",
            (
                Query(
                    'sum by (daemonset) (kube_daemonset_status_number_unavailable{daemonset=~".*model-cache"})',
                    "{{daemonset}}",
                ),
            ),
            needs="kubernetes",
        ),
    ),
)

DASHBOARDS: Sequence[Dashboard] = (OVERVIEW, STAGES, JOBS, GPU)
