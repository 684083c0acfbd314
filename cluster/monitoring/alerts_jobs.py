"""Alerts on what clients feel: failed jobs, long queues, late deliveries, and the parts of the job plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.monitoring.alert import Alert, Examples
from cluster.monitoring.rules import JOBS_GOAL, QUEUE_GOAL, SLOW_S

# How fast the error budget of thirty days is used up, over a long window and, to stop soon after the end, a short one:
# https://sre.google/workbook/alerting-on-slos/
FAST = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))
SLOW = ((3.0, "1d", "2h"), (1.0, "3d", "6h"))
_STATUS = "`skyreels status` or `GET /v1/status`: slots, ready and busy calls of each stage."
_LOGS = "The logs of the replicas, by the job's id or its trace id."


def _burn(record: str, goal: float, pairs: Sequence[tuple[float, str, str]]) -> str:
    bound = {rate: f"{rate * (1 - goal):.6g}" for rate, _, _ in pairs}
    return " or ".join(
        f"({record}{long} > {bound[rate]} and {record}{short} > {bound[rate]})" for rate, long, short in pairs
    )


def _jobs(failed: str, done: str) -> Examples:
    return {
        'ray_skyreels_jobs_total{state="failed", model="m"}': failed,
        'ray_skyreels_jobs_total{state="done", model="m"}': done,
    }


def _queue(late: str, in_time: str) -> Examples:
    return {
        'ray_skyreels_queue_seconds_bucket{stage="denoise", le="30.0"}': in_time,
        'ray_skyreels_queue_seconds_bucket{stage="denoise", le="+Inf"}': late,
        'ray_skyreels_queue_seconds_count{stage="denoise"}': late,
    }


def _objective(name: str, record: str, goal: float, what: str, look: tuple[str, ...], act: tuple[str, ...],
               examples: Mapping[str, tuple[Examples, Examples]]) -> list[Alert]:  # fmt: skip
    return [
        Alert(
            name=f"Skyreels{name}Burn{speed}",
            expr=_burn(record, goal, pairs),
            hold=hold,
            severity="page" if speed == "Fast" else "ticket",
            summary=f"The error budget of {what} is used up {'within days' if speed == 'Fast' else 'before its time'}.",
            meaning=f"The objective is that {goal:.0%} of all {what} are well. Two windows must both say so: a short "
            "burst does not wake anybody and the alert ends soon after the trouble.",
            look=look,
            act=act,
            fires=examples[speed][0],
            quiet=examples[speed][1],
        )
        for speed, pairs, hold in (("Fast", FAST, "2m"), ("Slow", SLOW, "15m"))
    ]


ALERTS: Sequence[Alert] = (
    *_objective(
        "Jobs",
        "skyreels:jobs_bad:ratio_rate",
        JOBS_GOAL,
        "jobs",
        ("The panel “Jobs that failed, by reason”.", _LOGS),
        (
            "`out_of_memory`, `non_finite`: one kind of request; refuse it by limits, or give its pool more memory.",
            "`worker_lost`: see SkyreelsGroupRebuilds and the nodes' events.",
            "`expired`: the queue is too long; see SkyreelsQueueBurnFast.",
        ),
        {
            "Fast": (_jobs("0+3x60", "0+7x60"), _jobs("0+0x60", "0+10x60")),
            "Slow": (_jobs("0+4x60", "0+96x60"), _jobs("0+0x60", "0+100x60")),
        },
    ),
    *_objective(
        "Queue",
        "skyreels:calls_late:ratio_rate",
        QUEUE_GOAL,
        f"stage calls, dispatched within {SLOW_S} s,",
        ("The panels “Waiting and slots” and “Time in the queue”: which stage is short of slots.", _STATUS),
        (
            "Raise the maximum of that stage's pool (`skyreels cluster scale-bounds`) when the cluster has room.",
            "Look for a tenant that floods: `limits.tenants` bounds it.",
            "When replicas are missing, see the alerts on nodes and placement groups.",
        ),
        {
            "Fast": (_queue("0+10x60", "0+1x60"), _queue("0+10x60", "0+10x60")),
            "Slow": (_queue("0+100x60", "0+80x60"), _queue("0+100x60", "0+99x60")),
        },
    ),
    Alert(
        "SkyreelsQueueStuck",
        "max by (stage) (ray_skyreels_queue_oldest_seconds) > 1800",
        "5m",
        "page",
        "A stage call has waited for half an hour.",
        "Jobs stand still before this stage: nobody takes its calls, or far too few.",
        (_STATUS, "`misplaced` in the status: no node has the labels that the pool asks for."),
        (
            "Start the missing replicas or nodes.",
            "Restart a Scheduler that leads but dispatches nothing: it keeps no state.",
        ),
        fires={'ray_skyreels_queue_oldest_seconds{stage="denoise"}': "0+60x60"},
        quiet={'ray_skyreels_queue_oldest_seconds{stage="denoise"}': "20+0x60"},
        labels={"stage": "denoise"},
    ),
    Alert(
        "SkyreelsNobodyLeads",
        "max(ray_skyreels_scheduler_leading) < 1",
        "2m",
        "page",
        "No Scheduler leads.",
        "Nothing is dispatched. Running stages go on; no job is lost.",
        ("The Scheduler's logs: whether the job store answers.", "SkyreelsStoreOutage."),
        ("Restore the job store; leadership returns by itself within seconds.",),
        fires={"ray_skyreels_scheduler_leading": "0+0x60"},
        quiet={"ray_skyreels_scheduler_leading": "1+0x60"},
    ),
    Alert(
        "SkyreelsNoScrape",
        "absent(ray_skyreels_scheduler_leading)",
        "5m",
        "page",
        "No metrics of the system arrive.",
        "Nothing can be said of the system: no alert but this one can fire.",
        (
            "Prometheus' targets: whether Ray's metrics port answers on every node.",
            "Whether the application runs at all.",
        ),
        ("Repair the PodMonitor or the NetworkPolicy between Prometheus and the pods.",),
        fires={"up": "1+0x60"},
        quiet={"ray_skyreels_scheduler_leading": "1+0x60"},
    ),
    Alert(
        "SkyreelsStoreOutage",
        "sum(increase(ray_skyreels_store_outages_total[5m])) > 10",
        "2m",
        "page",
        "The job store does not answer.",
        "Requests get 503; running stages go on and record their results when it is back.",
        (
            "The database's own monitoring: connections, disk, failover.",
            "SQLite: the disk's space and whether it is local.",
        ),
        ("Bring the database back. Nothing else is needed: leases are not reaped before it has answered for a while.",),
        fires={'ray_skyreels_store_outages_total{operation="read"}': "0+10x60"},
        quiet={'ray_skyreels_store_outages_total{operation="read"}': "5+0x60"},
    ),
    Alert(
        "SkyreelsStoreSlow",
        "skyreels:store_seconds:p99_5m > 0.5",
        "15m",
        "ticket",
        "Transactions of the job store are slow.",
        "Dispatching and heartbeats are late; jobs take longer than their stages need.",
        ("The panel “Job store”: reads or writes.", "The database's slow queries, locks and disk."),
        ("Give the database more room, or move an SQLite installation to PostgreSQL.",),
        fires={
            'ray_skyreels_store_seconds_bucket{operation="write", le="0.5"}': "0+1x60",
            'ray_skyreels_store_seconds_bucket{operation="write", le="1.0"}': "0+100x60",
            'ray_skyreels_store_seconds_bucket{operation="write", le="+Inf"}': "0+100x60",
        },
        quiet={
            'ray_skyreels_store_seconds_bucket{operation="write", le="0.01"}': "0+100x60",
            'ray_skyreels_store_seconds_bucket{operation="write", le="+Inf"}': "0+100x60",
        },
        labels={"operation": "write"},
    ),
    Alert(
        "SkyreelsDeliveriesLate",
        "max(ray_skyreels_delivery_oldest_due_seconds) > 600",
        "5m",
        "ticket",
        "A due webhook or upload has waited for ten minutes.",
        "Clients do not hear that their videos are ready; polling still works.",
        ("The Courier's logs.", "`skyreels deliveries list`: which receivers fail."),
        ("Raise `delivery.concurrency` or `delivery.replicas` when many receivers are slow.",),
        fires={"ray_skyreels_delivery_oldest_due_seconds": "0+60x60"},
        quiet={"ray_skyreels_delivery_oldest_due_seconds": "5+0x60"},
    ),
    Alert(
        "SkyreelsDeadLetters",
        'sum(max by (kind) (ray_skyreels_deliveries{state="dead"})) > 0',
        "30m",
        "ticket",
        "Deliveries were given up.",
        "Some receivers never got their webhooks or files.",
        ("`skyreels deliveries list`: who, and what they answered.",),
        ("Tell the receiver; then send them again: `skyreels deliveries resend`.",),
        fires={'ray_skyreels_deliveries{kind="webhook", state="dead"}': "2+0x60"},
        quiet={'ray_skyreels_deliveries{kind="webhook", state="dead"}': "0+0x60"},
    ),
    Alert(
        "SkyreelsWaste",
        "skyreels:work_wasted:ratio_rate1h > 0.2",
        "30m",
        "ticket",
        "A fifth of the device time is thrown away.",
        "Work is done twice, or for jobs that end before it is finished.",
        ("The panel “Work thrown away”: stage and reason.",),
        (
            "`lost`, `worker_lost`: nodes or ranks die; lower `denoise.snapshot_s` until that is repaired.",
            "`cancelled`, `expired`: clients give up; shorten the queue.",
        ),
        fires={
            'ray_skyreels_wasted_seconds_total{stage="denoise", reason="worker_lost"}': "0+30x60",
            'ray_skyreels_useful_seconds_total{stage="denoise"}': "0+30x60",
        },
        quiet={'ray_skyreels_useful_seconds_total{stage="denoise"}': "0+30x60"},
    ),
)
