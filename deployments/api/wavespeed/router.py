"""The WaveSpeed dialect: submit a task, query its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from cluster.canonical import Draft, check
from cluster.errors import InvalidRequest, UnknownModel
from cluster.records import Delivery, Dialect
from cluster.registry import KNOWN, MODELS
from deployments.api import errors
from deployments.api.bodies import body_schema, check_texts, problems, read_json
from deployments.api.idempotency import IdempotencyKey, Idempotent
from deployments.api.links import WAVESPEED_ROOT, links_of
from deployments.api.services import Served, Services, Tenant
from deployments.api.sources import Reference, parse_source, references
from deployments.api.wavespeed.schemas import (
    Envelope,
    ExtendVideo,
    FirstFrameToVideo,
    ForcedVideo,
    ImageToVideo,
    ReferenceToVideo,
    Refusal,
    SwitchShot,
    TalkingAvatar,
    TextToVideo,
)
from deployments.api.wavespeed.views import prediction

Webhook = Annotated[str | None, Query(description="http(s) URL that is called when the task has ended.")]
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Refusal} for code in (400, 401, 403, 404, 409, 413, 429, 503)
}
PREDICTIONS = "predictions"

router = APIRouter(prefix=WAVESPEED_ROOT, tags=["wavespeed"], responses=ERRORS)


@dataclass(frozen=True, slots=True)
class Task:
    """What a page of WaveSpeed's reference documents: the parameters, and how they become a draft."""

    body: type[ReferenceToVideo | ImageToVideo | ExtendVideo | TalkingAvatar | TextToVideo]
    read: Callable[[Any], tuple[Draft, tuple[Reference, ...]]]


def _reference_to_video(body: ReferenceToVideo) -> tuple[Draft, tuple[Reference, ...]]:
    draft = Draft(prompt=body.prompt, images=len(body.images), duration_s=body.duration, aspect_ratio=body.aspect_ratio)
    return draft, tuple(references(body.images, "images"))


def _image_to_video(body: ImageToVideo) -> tuple[Draft, tuple[Reference, ...]]:
    draft = Draft(
        prompt=body.prompt,
        images=1,
        aspect_ratio=body.aspect_ratio,
        seed=body.seed,
        negative_prompt=body.negative_prompt,
        guidance=body.guidance_scale,
        steps=body.num_inference_steps,
    )
    return draft, (Reference(parse_source(body.image, param="image"), "image"),)


def _extension(body: ExtendVideo) -> tuple[Draft, tuple[Reference, ...]]:
    draft = Draft(
        prompt=body.prompt,
        images=0,
        videos=1,
        duration_s=body.duration,
        resolution=body.resolution,
        seed=body.seed,
    )
    return draft, (Reference(parse_source(body.video, param="video"), "video", "video"),)


def _talking_avatar(body: TalkingAvatar) -> tuple[Draft, tuple[Reference, ...]]:
    voices = [body.audio] if isinstance(body.audio, str) else body.audio
    draft = Draft(
        prompt=body.prompt,
        images=1,
        voices=len(voices),
        masks=len(body.masks),
        resolution=body.resolution,
        seed=body.seed,
    )
    portrait = Reference(parse_source(body.image, param="image"), "image")
    return draft, (portrait, *references(voices, "audio", "audio"), *references(body.masks, "masks", "mask"))


def _text_to_video(body: TextToVideo, **counts: Any) -> Draft:
    return Draft(
        prompt=body.prompt,
        images=counts.pop("images", 0),
        duration_s=body.duration,
        aspect_ratio=body.aspect_ratio,
        seed=body.seed,
        guidance=body.guidance_scale,
        steps=body.num_inference_steps,
        negative_prompt=body.negative_prompt,
        **counts,
    )


def _first_frame_to_video(body: FirstFrameToVideo) -> tuple[Draft, tuple[Reference, ...]]:
    return _text_to_video(body, images=1), (Reference(parse_source(body.image, param="image"), "image"),)


def _forced_video(body: ForcedVideo) -> tuple[Draft, tuple[Reference, ...]]:
    if body.end_image is not None and body.image is None:
        raise InvalidRequest("end_image needs an image to begin with; give image too.", param="end_image")
    given = (("image", body.image), ("end_image", body.end_image), ("video", body.video))
    found = [
        Reference(parse_source(text, param=name), name, "video" if name == "video" else "image")
        for name, text in given
        if text is not None
    ]
    draft = _text_to_video(
        body,
        images=sum(reference.kind == "image" for reference in found),
        videos=int(body.video is not None),
        ar_step=body.ar_step,
        causal_block_size=body.causal_block_size,
        addnoise_condition=body.addnoise_condition,
    )
    return draft, tuple(found)


_OF_GRAPH: Mapping[str, Task] = {
    "t2v": Task(TextToVideo, lambda body: (_text_to_video(body), ())),
    "i2v": Task(FirstFrameToVideo, _first_frame_to_video),
    "df": Task(ForcedVideo, _forced_video),
}
TASKS: Mapping[str, Task] = {
    "skyreels-v3-r2v": Task(ReferenceToVideo, _reference_to_video),
    "skyreels-v3-extend": Task(ExtendVideo, _extension),
    "skyreels-v3-shot": Task(SwitchShot, _extension),
    "skyreels-v3-avatar": Task(TalkingAvatar, _talking_avatar),
    "skyreels-v1-i2v": Task(ImageToVideo, _image_to_video),
    **{model.name: _OF_GRAPH[model.graph] for model in MODELS.values() if model.graph in _OF_GRAPH},
}


@dataclass(frozen=True, slots=True)
class Call:
    """A request that submits a task, and on whose behalf."""

    request: Request
    services: Services
    tenant: str
    idempotent: IdempotencyKey
    webhook: str | None


def _call(request: Request, services: Served, tenant: Tenant, idempotent: Idempotent, webhook: Webhook = None) -> Call:
    return Call(request, services, tenant, idempotent, webhook)


Submission = Annotated[Call, Depends(_call)]


async def _submit(address: str, call: Call) -> Envelope | JSONResponse:
    request, services = call.request, call.services
    known = services.registry.known(address)
    task = TASKS.get(known.name)
    if task is None:
        raise UnknownModel(
            f"{known.name} has no WaveSpeed address; see the addresses in GET /v1/models.", param="model"
        )
    try:
        fields = await read_json(request)
        check_texts(fields)
        body = task.body.model_validate(fields)
    except ValidationError as error:
        return errors.bad_body(request.url.path, problems(error.errors()))
    draft, images = task.read(body)
    draft = replace(draft, delivery=Delivery(dialect=Dialect.WAVESPEED, webhook_url=call.webhook))
    check(known, draft)
    if known.name not in services.registry.models:
        await services.intake.inspect(images, call.tenant)
    model = services.registry.find(known.name)
    once = call.idempotent.of(Dialect.WAVESPEED, [known.name, call.webhook, fields])
    job = await services.intake.accept(model, draft, images, call.tenant, once)
    await services.wake()
    return Envelope(data=prediction(job, links_of(request, services.config)))


def _documented(address: str, title: str, task: Task) -> None:
    """A route of its own for each reference page, with its parameters in the OpenAPI document."""

    async def submit(call: Submission) -> Envelope | JSONResponse:
        return await _submit(address, call)

    router.add_api_route(
        f"/{address}",
        submit,
        methods=["POST"],
        response_model=Envelope,
        summary=title,
        description="Submits a task. Every model that the registry knows is checked in full before it is refused.",
        openapi_extra=body_schema(task.body),
    )


for _known in KNOWN.values():
    if _known.wavespeed is not None:
        _documented(_known.wavespeed, _known.title, TASKS[_known.name])


@router.get(f"/{PREDICTIONS}/{{prediction_id}}")
@router.get(f"/{PREDICTIONS}/{{prediction_id}}/result")
async def result(prediction_id: str, request: Request, services: Served, tenant: Tenant) -> Envelope:
    """A prediction. A failed one is a 200 with the error inside."""
    job = await services.store.get_job(prediction_id, tenant)
    return Envelope(data=prediction(job, links_of(request, services.config)))


@router.post("/{vendor}/{model}", response_model=Envelope, include_in_schema=False)
async def submit_alias(vendor: str, model: str, call: Submission) -> Envelope | JSONResponse:
    """The documented routes in another letter case or by an alias, and every name that is none."""
    _refuse_method(vendor)
    return await _submit(f"{vendor}/{model}", call)


@router.post("/{vendor}/{model}/{task}", response_model=Envelope, include_in_schema=False)
async def submit_task_alias(vendor: str, model: str, task: str, call: Submission) -> Envelope | JSONResponse:
    """As `submit_alias`, for names of three parts."""
    _refuse_method(vendor)
    return await _submit(f"{vendor}/{model}/{task}", call)


def _refuse_method(vendor: str) -> None:
    """POST to a prediction matches the two paths above, but there is no such vendor."""
    if vendor == PREDICTIONS:
        raise HTTPException(405, "Predictions are read with GET.", headers={"Allow": "GET"})
