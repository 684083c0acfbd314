"""What OpenAI's operations on finished videos share: bodies, forms, and the video that is named."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import Conflict, InvalidRequest
from cluster.records import Job, JobState
from deployments.api.bodies import inlined
from deployments.api.forms import Files
from deployments.api.schemas import STATUS
from deployments.api.services import Services

B = TypeVar("B", bound=BaseModel)
FILE = "file"  # no job is called so


class Body(BaseModel):
    """A body that says nothing that is not documented."""

    model_config = ConfigDict(extra="forbid")


class VideoReference(Body):
    """A video by the id of its job."""

    id: str


def operation(model: type[BaseModel], *, json: bool = True, file: bool = False) -> dict[str, Any]:
    """The OpenAPI request body of an operation; `file`: a form may bring the video itself."""
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


def parse(model: type[B], fields: object, files: Files, *, file: str | None) -> B:
    """The checked body; its video is `FILE` when a file takes the place of the reference. InvalidRequest."""
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
        fields = {**fields, "video": {"id": FILE}}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"{param or 'body'}: {first['msg']}.", param=param or None) from error


async def completed(services: Services, tenant: str, video_id: str) -> Job:
    """A finished job of the caller's. NotFound, Conflict."""
    job = await services.store.get_job(video_id, tenant)
    if job.state is not JobState.DONE:
        raise Conflict(f"Video {video_id} is {STATUS[job.state]}; only a completed video can be used.")
    return job
