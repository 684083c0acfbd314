"""Jobs in WaveSpeed's words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from cluster.records import Job, JobState
from cluster.registry import KNOWN
from deployments.api.links import Links
from deployments.api.results import failure, finished, worked_s
from deployments.api.wavespeed.schemas import CheckedPrediction, Prediction, Status, Timings, Urls

STATUS: Mapping[JobState, Status] = {
    JobState.QUEUED: "created",
    JobState.RUNNING: "processing",
    JobState.PUBLISHING: "processing",
    JobState.DONE: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "failed",
    JobState.EXPIRED: "failed",
}
CHECKED = frozenset({"skyreels-v1-i2v"})  # models whose answers have has_nsfw_contents


def prediction(job: Job, links: Links) -> Prediction:
    """A job, whatever API it came in by."""
    status = STATUS[job.state]
    reason = failure(job)
    view = CheckedPrediction if job.request.model in CHECKED else Prediction
    return view(
        id=job.id,
        model=KNOWN[job.request.model].wavespeed or job.request.model,
        outputs=[links.content(job.id, item.index) for item in finished(job)] if status == "completed" else [],
        urls=Urls(get=links.prediction(job.id)),
        status=status,
        created_at=_iso(job.created_at),
        error="" if reason is None else f"{reason.code}: {reason.message}",
        timings=Timings(inference=round(worked_s(job) * 1000)),
    )


def webhook(job: Job, links: Links) -> dict[str, object]:
    """The body of the call when a job has ended: the prediction without its envelope."""
    return prediction(job, links).model_dump(mode="json")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
