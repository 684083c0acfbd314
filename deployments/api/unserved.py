"""OpenAI's operations on finished videos: remix, extensions, edits, characters.

They read and check their input as OpenAI documents it, and then say that no served model does this. A client learns
first what is wrong with its request, and never that it worked.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.errors import Conflict, InvalidRequest, NotFound, Unsupported
from cluster.records import JobState
from cluster.registry import Registry
from deployments.api.bodies import inlined
from deployments.api.forms import Files, read_body
from deployments.api.schemas import STATUS, ErrorBody
from deployments.api.services import Served, Services, Tenant
from deployments.api.videos import ERRORS

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=ERRORS)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VideoReference(_Body):
    """A video by the id of its job."""

    id: str


class RemixVideo(_Body):
    """`POST /v1/videos/{video_id}/remix`."""

    prompt: str = Field(min_length=1)


class EditVideo(_Body):
    """`POST /v1/videos/edits`. As multipart form, `video` may be a file."""

    prompt: str = Field(min_length=1)
    video: VideoReference


class ExtendVideo(EditVideo):
    """`POST /v1/videos/extensions`. As multipart form, `video` may be a file."""

    seconds: Literal["4", "8", "12", "16", "20"]


class CreateCharacter(_Body):
    """`POST /v1/videos/characters`: a multipart form with the file `video`."""

    name: str = Field(min_length=1)


def _schema(model: type[BaseModel], *, json: bool = True, file: bool = False) -> dict[str, Any]:
    plain = model.model_json_schema()
    plain = inlined(plain, plain.pop("$defs", {}))
    form = {**plain, "properties": dict(plain["properties"]), "required": list(plain["required"])}
    if file:
        binary = {"type": "string", "format": "binary"}
        reference = form["properties"].get("video")
        form["properties"]["video"] = {"anyOf": [binary, reference]} if reference else binary
        form["required"] = sorted({*form["required"], "video"})
    content = {"multipart/form-data": {"schema": form}}
    if json:
        content["application/json"] = {"schema": plain}
    return {"requestBody": {"required": True, "content": content}}


@router.post("/{video_id}/remix", status_code=400, response_model=ErrorBody, openapi_extra=_schema(RemixVideo))
async def remix(video_id: str, request: Request, services: Served, tenant: Tenant) -> NoReturn:
    """Makes a finished video anew with another prompt. No served model does this yet."""
    fields, files = await read_body(request)
    _parse(RemixVideo, fields, files, file=None)
    await _completed(services, tenant, video_id)
    raise _unsupported(services.registry, "remixes videos")


@router.post("/extensions", status_code=400, response_model=ErrorBody, openapi_extra=_schema(ExtendVideo, file=True))
async def extend(request: Request, services: Served, tenant: Tenant) -> NoReturn:
    """Continues a finished video. No served model does this yet."""
    fields, files = await read_body(request)
    await _source(services, tenant, _parse(ExtendVideo, fields, files, file="video"))
    raise _unsupported(services.registry, "extends videos")


@router.post("/edits", status_code=400, response_model=ErrorBody, openapi_extra=_schema(EditVideo, file=True))
async def edit(request: Request, services: Served, tenant: Tenant) -> NoReturn:
    """Changes a finished video. No served model does this yet."""
    fields, files = await read_body(request)
    await _source(services, tenant, _parse(EditVideo, fields, files, file="video"))
    raise _unsupported(services.registry, "edits videos")


@router.post(
    "/characters",
    status_code=400,
    response_model=ErrorBody,
    openapi_extra=_schema(CreateCharacter, json=False, file=True),
)
async def create_character(request: Request, services: Served, tenant: Tenant) -> NoReturn:
    """Makes a character of a video. No served model does this yet."""
    fields, files = await read_body(request)
    if not files and isinstance(fields, dict) and "video" not in fields:
        raise InvalidRequest("video is required: send the file in a multipart form.", param="video")
    _parse(CreateCharacter, fields, files, file="video")
    raise _unsupported(services.registry, "makes characters")


@router.get("/characters/{character_id}", status_code=404, response_model=ErrorBody)
async def get_character(character_id: str, tenant: Tenant) -> NoReturn:
    """A character. There are none: no served model makes them yet."""
    raise NotFound("There is no such character; no served model makes characters yet.", param="character_id")


def _parse(model: type[BaseModel], fields: object, files: Files, *, file: str | None) -> BaseModel | None:
    """The checked body; None when the file takes the place of the reference. InvalidRequest."""
    for name, data in files:
        if name != file:
            raise InvalidRequest(f"{name} is not a file field.", param=name)
        if not data:
            raise InvalidRequest(f"{name} is an empty file; send the whole file.", param=name)
    if len(files) > 1:
        raise InvalidRequest(f"{file} is given twice.", param=file)
    stood_for = bool(files) and "video" in model.model_fields
    if stood_for and isinstance(fields, dict):
        if "video" in fields:
            raise InvalidRequest("video is given twice.", param="video")
        fields = {**fields, "video": {"id": "file"}}
    try:
        body = model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{param or 'body'}: {first['msg']}.", param=param or None) from error
    return None if stood_for else body


async def _source(services: Services, tenant: str, body: BaseModel | None) -> None:
    """A video that is named must be there and complete. NotFound, Conflict."""
    if isinstance(body, EditVideo):
        await _completed(services, tenant, body.video.id)


async def _completed(services: Services, tenant: str, video_id: str) -> None:
    """NotFound, Conflict."""
    job = await services.store.get_job(video_id, tenant)
    if job.state is not JobState.DONE:
        raise Conflict(f"Video {video_id} is {STATUS[job.state]}; only a completed video can be used.")


def _unsupported(registry: Registry, does: str) -> Unsupported:
    served = ", ".join(f"{model.name} ({model.task})" for model in registry.models.values())
    return Unsupported(f"No served model {does} yet; served models: {served}.")
