"""Jobs in Runware's words."""

from __future__ import annotations

from typing import Any

from cluster.records import Failure, Job
from deployments.api.errors import camel
from deployments.api.links import Links
from deployments.api.results import Finished, cost_usd, failure, finished
from deployments.api.runware.schemas import Acknowledgement, Applied, TaskError, TaskResult

VIDEO = "videoInference"


def acknowledgement(job: Job) -> dict[str, Any]:
    """What the caller hears when a task is queued, and whenever it sends the same again."""
    # No served model makes sound: what asks for it has been refused.
    applied = Applied(audio=False, promptExtend=job.request.prompt_extend)
    return Acknowledgement(taskUUID=_name(job), settings=applied).model_dump(mode="json")


def results(job: Job, links: Links) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`data` and `errors` of a task: what is finished, then what is awaited or why there is no more."""
    done = finished(job)
    data = [_success(job, item, links) for item in done]
    reason = failure(job)
    if reason is not None:
        return data, [_error(job, reason)]
    awaited = TaskResult(taskUUID=_name(job), status="processing").model_dump(mode="json", exclude_none=True)
    return data + [awaited] * (job.request.n - len(done)), []


def webhook(job: Job, index: int | None, links: Links) -> dict[str, object]:
    """The body of the call for one result, or (without index) for a task that has failed."""
    reason = failure(job)
    if index is None and reason is not None:
        return {"errors": [_error(job, reason)]}
    return {"data": [_success(job, item, links) for item in finished(job) if index in {None, item.index}]}


def _success(job: Job, item: Finished, links: Links) -> dict[str, Any]:
    return TaskResult(
        taskUUID=_name(job),
        status="success",
        videoUUID=item.uuid,
        videoURL=links.content(job.id, item.index),
        seed=item.seed,
        extendedPrompt=job.extension.prompt if job.extension is not None and job.extension.kept is None else None,
        cost=cost_usd(job) if job.request.delivery.include_cost else None,
    ).model_dump(mode="json", exclude_none=True)


def _error(job: Job, reason: Failure) -> dict[str, Any]:
    entry = TaskError(
        code=camel(reason.code), message=reason.message, taskUUID=_name(job), taskType=VIDEO, status="error"
    )
    return entry.model_dump(mode="json", exclude_none=True)


def _name(job: Job) -> str:
    """The task's UUID; the job's own id where another API made it."""
    return job.request.delivery.task_id or job.id
