"""The OpenAI Files dialect: upload, list, retrieve, content, delete. A file's id is a source in every request."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.datastructures import FormData, UploadFile

from cluster.errors import InvalidRequest, NotFound
from cluster.files import UploadedFile
from deployments.api.files import file_answers, file_response
from deployments.api.services import Served, Tenant
from deployments.api.videos import ERRORS

MAX_FIELDS = 8
MIN_KEEP_S = 60
FIELDS = frozenset({"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"})
PURPOSE = "user_data"
_PURPOSE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_CONTROL = re.compile(r"[\x01-\x1f\x7f]")

router = APIRouter(prefix="/v1/files", tags=["files"], responses=ERRORS)

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "default": PURPOSE, "pattern": f"^{_PURPOSE.pattern}$"},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": MIN_KEEP_S},
                    },
                }
            }
        },
    }
}


class FileObject(BaseModel):
    """An uploaded file; the fields behind `status` are ours."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    media_type: str = Field(description="By the file's bytes, whatever the upload declared.")
    sha256: str
    width: int | None = Field(description="Pixels; null for sound.")
    height: int | None
    duration_s: float | None = Field(description="Null for images, and where the container does not say.")


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


class FileDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_object(file: UploadedFile) -> FileObject:
    """A file in OpenAI's words."""
    return FileObject(
        id=file.id,
        bytes=file.nbytes,
        created_at=_unix(file.created_at),
        expires_at=_unix(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
        media_type=file.info.media_type,
        sha256=file.sha256,
        width=file.info.width,
        height=file.info.height,
        duration_s=file.info.duration_s,
    )


@router.post("", openapi_extra=BODY)
async def create(request: Request, services: Served, tenant: Tenant) -> FileObject:
    """Stores an image, video or sound for later requests; a multipart form with the file in `file`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise InvalidRequest("Send multipart/form-data with the file in the field file.", param="content-type")
    async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
        if unknown := [name for name in form if name not in FIELDS]:
            raise InvalidRequest(f"Unknown field {unknown[0]}; known fields: {', '.join(sorted(FIELDS))}.")
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequest("file must be a file.", param="file")
        if "\0" in (file.filename or ""):
            raise InvalidRequest("file: its name must not contain a NUL character.", param="file")
        stored = await services.uploads.accept(
            file.file,
            file.size or 0,
            filename=_CONTROL.sub("", file.filename or "")[:255] or "file",
            purpose=_purpose(form),
            keep_s=_keep_s(form),
            tenant=tenant,
        )
    return file_object(stored)


@router.get("")
async def list_files(
    services: Served,
    tenant: Tenant,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> FileList:
    """A page of files; `after` is the last id of the page before."""
    page = await services.store.list_files(
        tenant, after=after, limit=limit, newest_first=order == "desc", purpose=purpose
    )
    data = [file_object(file) for file in page.files]
    return FileList(
        data=data,
        has_more=page.has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.get("/{file_id}")
async def retrieve(file_id: str, services: Served, tenant: Tenant) -> FileObject:
    """A file."""
    return file_object(await services.store.get_file(file_id, tenant))


@router.head("/{file_id}/content", include_in_schema=False)
@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses=file_answers("image/*", "video/*", "audio/*"),
)
async def content(file_id: str, request: Request, services: Served, tenant: Tenant) -> Response:
    """The file's bytes; ranges and If-None-Match are honoured."""
    file = await services.store.get_file(file_id, tenant)
    try:
        return await file_response(
            request,
            services.artifacts,
            file.uri,
            file.info.media_type,
            etag=file.sha256,
            filename=file.filename,
            sha256=file.sha256,
        )
    except NotFound as error:
        raise NotFound(f"The content of file {file_id} is gone.") from error


@router.delete("/{file_id}")
async def delete(file_id: str, services: Served, tenant: Tenant) -> FileDeleted:
    """Deletes a file. Jobs that were given it have copies of their own and go on."""
    await services.store.delete_file(file_id, tenant)
    return FileDeleted(id=file_id)


def _purpose(form: FormData) -> str:
    purpose = form.get("purpose", PURPOSE)
    if not isinstance(purpose, str) or not _PURPOSE.fullmatch(purpose):
        raise InvalidRequest("purpose must be a short word of small letters, digits, '_' and '-'.", param="purpose")
    return purpose


def _keep_s(form: FormData) -> float | None:
    """Seconds to keep the file if the caller wants less than the rule; a longer time is the rule's."""
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor not in (None, "created_at"):
        raise InvalidRequest("expires_after[anchor] must be created_at.", param="expires_after[anchor]")
    if not isinstance(seconds, str) or not re.fullmatch(r"\d{1,9}", seconds) or int(seconds) < MIN_KEEP_S:
        message = f"expires_after[seconds] must be a whole number of at least {MIN_KEEP_S}."
        raise InvalidRequest(message, param="expires_after[seconds]")
    return float(seconds)


def _unix(moment: datetime) -> int:
    return int(moment.timestamp())
