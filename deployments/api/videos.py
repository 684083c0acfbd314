"""The OpenAI Videos dialect: create, retrieve, list, delete, content, and our cancel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from cluster.canonical import Draft
from cluster.errors import Conflict, InvalidRequest, NotFound
from cluster.plans import Size
from cluster.records import Artifact, Container, Delivery, Dialect, Output, Rendition
from deployments.api.bodies import inlined
from deployments.api.files import file_answers, file_response
from deployments.api.forms import Files, read_body
from deployments.api.idempotency import Idempotent
from deployments.api.schemas import (
    CreateVideo,
    ErrorBody,
    ImageInput,
    MediaInput,
    Video,
    VideoDeleted,
    VideoList,
    video,
)
from deployments.api.services import Index, Served, Tenant, result_of
from deployments.api.sources import Kind, Reference, UploadSource, parse_source
from deployments.api.timing import HEADER, server_timing

FILE_FIELDS: Mapping[str, Kind] = {
    "input_reference": "image",
    "images": "image",
    "video": "video",
    "audio": "audio",
    "masks": "mask",
}
LISTS = frozenset(FILE_FIELDS) - {"video"}
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody} for code in (400, 401, 403, 404, 409, 413, 429, 503)
}

# A red picture of 16×9 pixels.
RED = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAJCAIAAAC0SDtlAAAAF0lEQVR42mM8wcXFQApgYiARjGqgiQYA"
    "i0sA7jIUkUAAAAAASUVORK5CYII="
)
Variant = Literal["video", "thumbnail", "spritesheet"]

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=ERRORS)


def _body_schema() -> dict[str, Any]:
    schema = CreateVideo.model_json_schema()
    schema = inlined(schema, schema.pop("$defs"))
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "Files, in order."}
    form = {**schema, "properties": {**schema["properties"], **dict.fromkeys(sorted(FILE_FIELDS), files)}}
    example = {"prompt": "A red ball rolls over a grey floor", "images": [RED], "aspect_ratio": "16:9"}
    content = {
        "application/json": {"schema": schema, "example": example},
        "multipart/form-data": {"schema": form},
    }
    return {"required": True, "content": content}


SUFFIXES = {container.media_type: container.value for container in Container} | {
    "image/webp": "webp",
    "image/jpeg": "jpg",
}


@router.post("", openapi_extra={"requestBody": _body_schema()})
async def create(request: Request, services: Served, tenant: Tenant, idempotent: Idempotent) -> Video:
    """Queues a video. JSON with image URLs or data URIs, or a multipart form with image files."""
    fields, files = await read_body(request, lists=LISTS)
    once = idempotent.of(Dialect.OPENAI, fields, files)
    body = _parse(fields)
    name = body.model if body.model is not None else services.config.models[0].name
    model = services.registry.find(name)
    references = [*_references(body), *_uploads(files)]
    draft = draft_of(body, references)
    job = await services.intake.accept(model, draft, references, tenant, once)
    await services.wake()
    return video(job)


def draft_of(body: CreateVideo, references: Sequence[Reference], **fields: Any) -> Draft:
    """What a body asks for, with its media counted."""
    counts = Counter(reference.kind for reference in references)
    return Draft(
        prompt=body.prompt,
        images=counts["image"],
        videos=counts["video"],
        voices=counts["audio"],
        masks=counts["mask"],
        include_source=body.include_source,
        guidance=body.guidance,
        guidance_image=body.guidance_image,
        steps=body.steps,
        duration_s=seconds_of(body.seconds),
        size=_size(body.size),
        aspect_ratio=body.aspect_ratio,
        resolution=body.resolution,
        seed=body.seed,
        negative_prompt=body.negative_prompt,
        n=body.n,
        priority=body.priority,
        output=Output(body.output_format, body.output_quality),
        deadline_s=body.deadline_s,
        delivery=Delivery(
            webhook_url=body.webhook_url,
            upload_url=body.upload_url,
            ttl_s=body.ttl,
            include_cost=body.include_cost,
        ),
        **fields,
    )


@router.get("")
async def list_videos(
    services: Served,
    tenant: Tenant,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> VideoList:
    """A page of jobs; `after` is the last id of the page before."""
    page = await services.store.list_jobs(tenant, after=after, limit=limit, newest_first=order == "desc")
    data = [video(job) for job in page.jobs]
    return VideoList(
        data=data,
        has_more=page.has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.get("/{video_id}")
async def retrieve(video_id: str, response: Response, services: Served, tenant: Tenant) -> Video:
    """A job. A failed one is a 200 with the error inside. Server-Timing says where the time of one that ended went."""
    job = await services.store.get_job(video_id, tenant)
    if (timing := server_timing(job)) is not None:
        response.headers[HEADER] = timing
    return video(job)


@router.delete("/{video_id}")
async def delete(video_id: str, services: Served, tenant: Tenant) -> VideoDeleted:
    """Stops a running job, and deletes it and its files."""
    job = await services.store.delete_job(video_id, tenant)
    await services.wake()
    return VideoDeleted(id=job.id)


@router.post("/{video_id}/cancel")
async def cancel(video_id: str, services: Served, tenant: Tenant) -> Video:
    """Stops a job and keeps it: `failed` with code `cancelled`. A job that has ended is returned as it is."""
    job = await services.store.cancel_job(video_id, tenant)
    await services.wake()
    return video(job)


@router.head("/{video_id}/content", include_in_schema=False)
@router.get("/{video_id}/content", response_class=Response, responses=file_answers(*SUFFIXES))
async def content(
    video_id: str,
    request: Request,
    services: Served,
    tenant: Tenant,
    variant: Annotated[
        Variant, Query(description="The video, a WebP of one frame, or a JPEG grid of frames.")
    ] = "video",
    index: Index = 0,
) -> Response:
    """A result's finished file, as soon as it is published; ranges and If-None-Match are honoured."""
    job = await services.store.get_job(video_id, tenant)
    artifact = result_of(job, index).artifact
    if artifact is None:
        raise Conflict(f"Video {video_id} is {video(job).status}; its content exists once it is completed.")
    file = _variant(artifact, variant)
    if file is None:
        raise NotFound(f"Video {video_id} has no {variant}: it was made before there were any.", param="variant")
    name = video_id + (f"-{index}" if index else "") + ("" if file is artifact else f"-{variant}")
    try:
        response = await file_response(
            request,
            services.artifacts,
            file.uri,
            file.media_type,
            etag=file.sha256,
            filename=f"{name}.{SUFFIXES[file.media_type]}",
            sha256=file.sha256,
        )
    except NotFound as error:
        raise NotFound(f"The content of video {video_id} has expired.") from error
    if (timing := server_timing(job)) is not None:
        response.headers[HEADER] = timing
    return response


def _variant(artifact: Artifact, variant: Variant) -> Artifact | Rendition | None:
    return {"video": artifact, "thumbnail": artifact.thumbnail, "spritesheet": artifact.spritesheet}[variant]


def _uploads(files: Files) -> list[Reference]:
    if unknown := [name for name, _ in files if name not in FILE_FIELDS]:
        known = ", ".join(FILE_FIELDS)
        raise InvalidRequest(f"{unknown[0]} is not a file field; file fields: {known}.", param=unknown[0])
    return [
        Reference(UploadSource(data), f"{name}[{index}]", FILE_FIELDS[name]) for index, (name, data) in enumerate(files)
    ]


def _parse(fields: object) -> CreateVideo:
    try:
        return CreateVideo.model_validate(fields)
    except ValidationError as error:
        found = error.errors()
        first = next((one for one in found if one["type"] == "value_error"), found[0])
        param = _place(first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(CreateVideo.model_fields)
            raise InvalidRequest(f"Unknown field {param}; known fields: {known}.", param=param) from error
        # Of several types that were tried each has its own reason.
        reasons = dict.fromkeys(one["msg"] for one in found if _place(one["loc"]) == param)
        raise InvalidRequest(f"{param or 'body'}: {', or '.join(reasons)}.", param=param or None) from error


def _place(loc: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in loc if not _is_tag(part))


def _is_tag(part: str | int) -> bool:
    """Whether a part of an error's place only names which of several types was tried."""
    return isinstance(part, str) and (part in {"str", "int", "ImageReference", "MediaReference"} or "[" in part)


def _references(body: CreateVideo) -> list[Reference]:
    given = body.input_reference
    if given is None or isinstance(given, list):
        named = [(item, f"input_reference[{index}]") for index, item in enumerate(given or ())]
    else:
        named = [(given, "input_reference")]
    named += [(item, f"images[{index}]") for index, item in enumerate(body.images or ())]
    found = [_reference(item, param) for item, param in named]
    if body.video is not None:
        found.append(_reference(body.video, "video", "video"))
    voices = body.audio if isinstance(body.audio, list) else [body.audio] if body.audio is not None else []
    one = len(voices) == 1 and not isinstance(body.audio, list)
    found += [_reference(item, "audio" if one else f"audio[{index}]", "audio") for index, item in enumerate(voices)]
    found += [_reference(item, f"masks[{index}]", "mask") for index, item in enumerate(body.masks or ())]
    return found


def _reference(item: ImageInput | MediaInput, param: str, kind: Kind = "image") -> Reference:
    return Reference(parse_source(item if isinstance(item, str) else item.source, param=param), param, kind)


def seconds_of(value: str | int | None) -> int | None:
    """Whole seconds as a client writes them. InvalidRequest."""
    if value is None or isinstance(value, int):
        return value
    if not re.fullmatch(r"\d{1,4}", value):
        raise InvalidRequest(f"seconds must be a whole number; got {value!r}.", param="seconds")
    return int(value)


def _size(value: str | None) -> Size | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if match is None:
        raise InvalidRequest(f"size must look like '1280x720'; got {value!r}.", param="size")
    return int(match[2]), int(match[1])
