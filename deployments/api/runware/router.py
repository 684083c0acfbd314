"""The Runware dialect: an array of tasks in, what became of each out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from cluster.canonical import Draft
from cluster.errors import Conflict, InvalidRequest, LimitExceeded, NotFound, SkyreelsError, Unavailable
from cluster.records import Container, Delivery, Dialect, Job, Output
from cluster.registry import Known
from deployments.api import errors
from deployments.api.bodies import body_schema, check_texts, problems, read_json
from deployments.api.links import Links, links_of
from deployments.api.runware import rules, views
from deployments.api.runware.media import check_medium, given, media
from deployments.api.runware.schemas import Answer, GetResponse, Refusal, VideoInference
from deployments.api.services import Served, Services, Tenant

MAX_TASKS = 100  # of one call
MAX_NAME_CHARS = 64  # of what an error repeats
TASKS: dict[str, type[VideoInference | GetResponse]] = {"videoInference": VideoInference, "getResponse": GetResponse}
ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": Refusal} for code in (400, 401, 403, 404, 413, 429, 503)}

router = APIRouter(prefix=errors.RUNWARE_ROOT, tags=["runware"], responses=ERRORS)


@dataclass(slots=True)
class Outcome:
    """What became of one task. A task that was accepted and failed later is done: its failure is the answer."""

    data: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False
    refusal: SkyreelsError | None = None


@router.post("/v1", response_model=Answer, openapi_extra=body_schema(VideoInference, GetResponse, array=True))
async def tasks(request: Request, services: Served, tenant: Tenant) -> JSONResponse:
    """Works through the tasks in their order. 200 when at least one could be done; `errors` tells of the others. 400
    when none could; 429 or 503 with Retry-After when none could for now.

    A call may be sent again: a task's `taskUUID` is its idempotency key, and an Idempotency-Key header is not read.
    """
    items = await read_json(request)
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_TASKS:
        raise InvalidRequest(f"The body must be a JSON array of 1 to {MAX_TASKS} tasks.")
    links = links_of(request, services.config)
    outcomes = [await _one(item, services, tenant, links) for item in items]
    found = [entry for outcome in outcomes for entry in outcome.errors]
    if not any(outcome.done for outcome in outcomes):
        return refused(outcomes, found)
    data = [entry for outcome in outcomes for entry in outcome.data]
    return JSONResponse({"data": data} | ({"errors": found} if found else {}))


def refused(outcomes: Sequence[Outcome], found: Sequence[dict[str, Any]]) -> JSONResponse:
    """No task could be done. A wait that all of them need is one for the whole call."""
    first = outcomes[0].refusal
    if isinstance(first, LimitExceeded | Unavailable) and all(type(o.refusal) is type(first) for o in outcomes):
        return JSONResponse({"errors": found}, errors.row_of(type(first)).status, headers=errors.advice(first))
    return JSONResponse({"errors": found}, 400)


async def _one(item: object, services: Services, tenant: str, links: Links) -> Outcome:
    named = _named(item)
    try:
        task = _parse(item)
        if isinstance(task, GetResponse):
            return await _get(task, services, tenant, links)
        job = await _queue(task, services, tenant)
    except ValidationError as error:
        return Outcome(errors=[errors.runware_problem(problem) | named for problem in problems(error.errors())])
    except SkyreelsError as error:
        return Outcome(errors=[errors.runware_error(error) | named], refusal=error)
    return Outcome(data=[views.acknowledgement(job)], done=True)


def _named(item: object) -> dict[str, Any]:
    """How an error says which task it is about."""
    fields = item if isinstance(item, dict) else {}
    named = {name: fields.get(name) for name in ("taskUUID", "taskType")}
    return {name: value for name, value in named.items() if isinstance(value, str) and len(value) <= MAX_NAME_CHARS}


def _parse(item: object) -> VideoInference | GetResponse:
    if not isinstance(item, dict):
        raise InvalidRequest("Each task must be a JSON object.")
    check_texts(item)
    kind = item.get("taskType")
    model = TASKS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise InvalidRequest(f"taskType must be one of {', '.join(TASKS)}.", param="taskType")
    return model.model_validate(item)


async def _get(task: GetResponse, services: Services, tenant: str, links: Links) -> Outcome:
    outcome = Outcome()
    for name in task.taskUUID:
        try:
            job = await services.store.find_task(name, tenant)
        except NotFound as error:
            unknown = NotFound(error.message, param="taskUUID")
            outcome.errors.append(errors.runware_error(unknown) | {"taskUUID": name, "taskType": task.taskType})
            continue
        data, failed = views.results(job, links)
        outcome.data += data
        outcome.errors += failed
        outcome.done = True
    return outcome


async def _queue(task: VideoInference, services: Services, tenant: str) -> Job:
    """The task's job: a new one, or the one that the same task has made before.

    Raises:
        Conflict: the UUID was used for another task, or for one that is deleted.
    """
    known = services.registry.known(task.model)
    rules.check_task(known, task)
    if known.name not in services.registry.models:
        await _check_media(known, task, services, tenant)
    model = services.registry.find(known.name)
    rules.offered(task)
    draft = _draft(task, extends=services.config.extends_prompts)
    job = await _earlier(task, services, tenant)
    if job is None:
        try:
            job = await services.intake.accept(model, draft, given(task), tenant)
            await services.wake()
        except Conflict as error:  # another call was faster, or the earlier job is deleted
            job = await _earlier(task, services, tenant)
            if job is None:
                raise Conflict("taskUUID was used before; use a new one.", param="taskUUID") from error
    if job.request.delivery.task_sha256 != draft.delivery.task_sha256:
        raise Conflict("taskUUID was used for another task; use a new one.", param="taskUUID")
    return job


async def _check_media(known: Known, task: VideoInference, services: Services, tenant: str) -> None:
    """What `Intake.accept` would do for a model that is served, as far as it goes without fetching."""
    found = media(task)
    infos = await services.intake.inspect([medium.reference for medium in found], tenant)
    for medium, info in zip(found, infos, strict=True):
        if info is not None:
            check_medium(known, medium, info)


async def _earlier(task: VideoInference, services: Services, tenant: str) -> Job | None:
    try:
        return await services.store.find_task(task.taskUUID, tenant)
    except NotFound:
        return None


def _draft(task: VideoInference, *, extends: bool) -> Draft:
    """`extends`: whether prompts can be extended here, and so are unless the task says no."""
    extend = task.settings.promptExtend
    return Draft(
        prompt=task.positivePrompt,
        images=sum(reference.kind == "image" for reference in given(task)),
        videos=len(task.inputs.referenceVideos or ()),
        voices=sum(group.audio is not None for group in task.inputs.referenceImages or ()),
        duration_s=None if task.duration is None else int(task.duration),
        size=rules.size(task),
        resolution=rules.family(task),
        n=task.numberResults,
        output=Output(Container(task.outputFormat.lower()), task.outputQuality),
        delivery=Delivery(
            dialect=Dialect.RUNWARE,
            webhook_url=task.webhookURL,
            upload_url=task.uploadEndpoint,
            ttl_s=task.ttl,
            include_cost=task.includeCost,
            task_id=task.taskUUID,
            task_sha256=_fingerprint(task),
        ),
        prompt_extend=extends if extend is None else extend,
    )


def _fingerprint(task: BaseModel) -> str:
    """The same for tasks that ask the same, however they are written down."""
    fields = task.model_dump(mode="json", exclude={"taskUUID"})
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
