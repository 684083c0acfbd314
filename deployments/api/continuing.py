"""OpenAI's remix and extensions: a finished video, or a file, becomes the source of a new one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, StrictInt, StrictStr

from cluster.canonical import Draft
from cluster.errors import NotFound, Unsupported
from cluster.records import Dialect, Job
from cluster.registry import Model, Registry
from deployments.api.forms import Files, read_body
from deployments.api.idempotency import IdempotencyKey, Idempotent
from deployments.api.operations import Body, VideoReference, completed, operation, parse
from deployments.api.schemas import Video, video
from deployments.api.services import Served, Services, Tenant
from deployments.api.sources import FileSource, Reference, ResultSource, UploadSource, parse_source
from deployments.api.videos import ERRORS, seconds_of

EXTENSION, REMIX = "single_shot_extension", "shot_switching_extension"

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=ERRORS)


class RemixVideo(Body):
    """`POST /v1/videos/{video_id}/remix`."""

    prompt: str = Field(min_length=1)
    model: str | None = Field(default=None, description="Ours: which model continues it.")
    seconds: StrictStr | StrictInt | None = Field(default=None, description="Ours: whole seconds of the new video.")
    seed: int | None = Field(default=None, description="Ours: −1 or left out = random.")


class ExtendVideo(Body):
    """`POST /v1/videos/extensions`. As multipart form, `video` may be a file. `video.id` is a completed job's, or that
    of an uploaded file.
    """

    prompt: str = Field(min_length=1)
    video: VideoReference
    seconds: StrictStr | StrictInt | None = Field(default=None, description="Whole seconds, in the model's range.")
    model: str | None = Field(default=None, description="Ours: which model continues it.")
    seed: int | None = Field(default=None, description="Ours: −1 or left out = random.")
    include_source: bool = Field(default=False, description="Ours: the source comes first in the file.")


@router.post("/{video_id}/remix", openapi_extra=operation(RemixVideo))
async def remix(video_id: str, request: Request, services: Served, tenant: Tenant, idempotent: Idempotent) -> Video:
    """Cuts from a finished video to a new shot by another prompt."""
    fields, files = await read_body(request)
    body = parse(RemixVideo, fields, files, file=None)
    source = await _finished(services, tenant, video_id)
    model = _model(services.registry, body.model, REMIX, "remixes videos")
    draft = Draft(
        prompt=body.prompt,
        images=0,
        videos=1,
        duration_s=seconds_of(body.seconds),
        seed=body.seed,
        remixed_from=video_id,
    )
    asked = [video_id, fields]
    return await _accept(services, tenant, model, draft, source, (idempotent, asked, files))


@router.post("/extensions", openapi_extra=operation(ExtendVideo, file=True))
async def extend(request: Request, services: Served, tenant: Tenant, idempotent: Idempotent) -> Video:
    """Continues a finished video, or a file."""
    fields, files = await read_body(request)
    body = parse(ExtendVideo, fields, files, file="video")
    remixed_from = None
    if files:
        source = Reference(UploadSource(files[0][1]), "video", "video")
    elif isinstance(named := _named(body.video.id), FileSource):
        source = Reference(named, "video.id", "video")
    else:
        source, remixed_from = await _finished(services, tenant, body.video.id), body.video.id
    model = _model(services.registry, body.model, EXTENSION, "extends videos")
    draft = Draft(
        prompt=body.prompt,
        images=0,
        videos=1,
        duration_s=seconds_of(body.seconds),
        seed=body.seed,
        include_source=body.include_source,
        remixed_from=remixed_from,
    )
    return await _accept(services, tenant, model, draft, source, (idempotent, ["extensions", fields], files))


def _named(video_id: str) -> FileSource | None:
    """The uploaded file of that id; None for whatever is called otherwise."""
    found = parse_source(video_id) if video_id.startswith("file-") else None
    return found if isinstance(found, FileSource) else None


def _model(registry: Registry, name: str | None, task: str, does: str) -> Model:
    """The model that was asked for, or the first that has the task. UnknownModel, Unsupported."""
    if name is not None:
        model = registry.find(name)
        if not model.limits.max_videos:
            raise Unsupported(f"{model.name} takes no video; leave model out.", param="model")
        return model
    for model in registry.models.values():
        if model.task == task:
            return model
    served = ", ".join(f"{model.name} ({model.task})" for model in registry.models.values())
    raise Unsupported(f"No served model {does}; served models: {served}.")


async def _finished(services: Services, tenant: str, video_id: str) -> Reference:
    """The first result of a completed job. NotFound, Conflict."""
    job: Job = await completed(services, tenant, video_id)
    artifact = job.results[0].artifact
    if artifact is None or not await services.artifacts.exists(artifact.uri):
        raise NotFound(f"The content of video {video_id} has expired.", param="video")
    return Reference(ResultSource(artifact), "video", "video")


async def _accept(
    services: Services,
    tenant: str,
    model: Model,
    draft: Draft,
    source: Reference,
    asked: tuple[IdempotencyKey, Any, Files],
) -> Video:
    key, fields, files = asked
    once = key.of(Dialect.OPENAI, fields, files)
    job = await services.intake.accept(model, draft, [source], tenant, once)
    await services.wake()
    return video(job)
