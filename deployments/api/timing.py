"""What a finished job's time went into, as a `Server-Timing` header (W3C)."""

from __future__ import annotations

from cluster.records import Job

HEADER = "Server-Timing"


def server_timing(job: Job) -> str | None:
    """Milliseconds until the job was first worked on (`queue`), in each stage over all results, and altogether
    (`total`), of the attempts that counted. None while the job goes on. Results side by side share their time, so the
    stages of several may be more than the total.
    """
    if job.finished_at is None:
        return None
    spent = {"queue": ((job.started_at or job.finished_at) - job.created_at).total_seconds()}
    for stage in job.stages:
        if stage.claimed_at is not None and stage.done_at is not None:
            spent[stage.stage] = spent.get(stage.stage, 0.0) + (stage.done_at - stage.claimed_at).total_seconds()
    spent["total"] = (job.finished_at - job.created_at).total_seconds()
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in spent.items())
