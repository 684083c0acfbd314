"""OpenAI's operations on finished videos that no served model does: edits, characters.

They read and check their input as OpenAI documents it, and then say so. A client learns first what is wrong with its
request, and never that it worked.
"""

from __future__ import annotations

from typing import NoReturn

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from cluster.errors import InvalidRequest, NotFound, Unsupported
from cluster.registry import Registry
from deployments.api.forms import read_body
from deployments.api.operations import FILE, Body, VideoReference, completed, operation, parse
from deployments.api.schemas import ErrorBody
from deployments.api.services import Served, Services, Tenant
from deployments.api.videos import ERRORS

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=ERRORS)


class EditVideo(Body):
    """`POST /v1/videos/edits`. As multipart form, `video` may be a file."""

    prompt: str = Field(min_length=1)
    video: VideoReference


class CreateCharacter(Body):
    """`POST /v1/videos/characters`: a multipart form with the file `video`."""

    name: str = Field(min_length=1)


@router.post("/edits", status_code=400, response_model=ErrorBody, openapi_extra=operation(EditVideo, file=True))
async def edit(request: Request, services: Served, tenant: Tenant) -> NoReturn:
    """Changes a finished video. No served model does this yet."""
    fields, files = await read_body(request)
    await _source(services, tenant, parse(EditVideo, fields, files, file="video"))
    raise _unsupported(services.registry, "edits videos")


@router.post(
    "/characters",
    status_code=400,
    response_model=ErrorBody,
    openapi_extra=operation(CreateCharacter, json=False, file=True),
)
async def create_character(request: Request, services: Served, tenant: Tenant) -> NoReturn:
    """Makes a character of a video. No served model does this yet."""
    fields, files = await read_body(request)
    if not files and isinstance(fields, dict) and "video" not in fields:
        raise InvalidRequest("video is required: send the file in a multipart form.", param="video")
    parse(CreateCharacter, fields, files, file="video")
    raise _unsupported(services.registry, "makes characters")


@router.get("/characters/{character_id}", status_code=404, response_model=ErrorBody)
async def get_character(character_id: str, tenant: Tenant) -> NoReturn:
    """A character. There are none: no served model makes them yet."""
    raise NotFound("There is no such character; no served model makes characters yet.", param="character_id")


async def _source(services: Services, tenant: str, body: BaseModel) -> None:
    """A video that is named must be there and complete. NotFound, Conflict."""
    if isinstance(body, EditVideo) and body.video.id != FILE:
        await completed(services, tenant, body.video.id)


def _unsupported(registry: Registry, does: str) -> Unsupported:
    served = ", ".join(f"{model.name} ({model.task})" for model in registry.models.values())
    return Unsupported(f"No served model {does} yet; served models: {served}.")
