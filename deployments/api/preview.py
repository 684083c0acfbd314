"""The preview of a video: its finished segments as HLS, from the first one until the files are swept."""

from __future__ import annotations

import hashlib

from fastapi import APIRouter, Request
from fastapi.responses import Response

from cluster.errors import Conflict, NotFound
from deployments.api import hls
from deployments.api.files import file_answers, file_response
from deployments.api.services import Index, Served, Tenant, result_of
from deployments.api.videos import ERRORS

router = APIRouter(prefix="/v1/videos/{video_id}/preview", tags=["videos"], responses=ERRORS)


@router.head("", include_in_schema=False)
@router.get("", response_class=Response, responses={200: {"content": {hls.MEDIA_TYPE: {}}}})
async def preview(video_id: str, services: Served, tenant: Tenant, index: Index = 0) -> Response:
    """A result's HLS playlist; it grows until the result is complete, or the video has failed or was cancelled.

    409 before the first segment: players give up on a playlist without segments. 404 when there will be none (the job
    ended before, or its files are swept).
    """
    # In this order: a job that had ended before has every segment it will ever have.
    job = await services.store.get_job(video_id, tenant)
    ended = result_of(job, index).artifact is not None or job.state.terminal
    chunks = await services.store.segments(video_id, tenant, index)
    if not chunks and ended:
        raise NotFound(f"Video {video_id} has no preview, or its files have expired.")
    if not chunks:
        raise Conflict(f"Video {video_id} has no segment yet; ask again when its phase is decode.")
    text = hls.playlist(chunks, ended=ended, result=index)
    return Response(text, media_type=hls.MEDIA_TYPE, headers={"cache-control": "no-cache"})


@router.head("/{chunk}/{name}", include_in_schema=False)
@router.get(
    "/{chunk}/{name}",
    response_class=Response,
    responses=file_answers(hls.INIT_MEDIA_TYPE, hls.SEGMENT_MEDIA_TYPE),
)
async def segment(
    video_id: str, chunk: int, name: str, request: Request, services: Served, tenant: Tenant, index: Index = 0
) -> Response:
    """An init or media segment that the playlist names."""
    # Names are looked up, never made into a path.
    uris = hls.files((await services.store.segments(video_id, tenant, index)).get(chunk, ()))
    if name not in uris:
        raise NotFound(f"The preview of video {video_id} has no {chunk}/{name}.")
    media_type = hls.INIT_MEDIA_TYPE if name == hls.INIT_NAME else hls.SEGMENT_MEDIA_TYPE
    # A URI is written once, so it names its bytes.
    etag = hashlib.sha256(uris[name].encode()).hexdigest()[:32]
    return await file_response(request, services.artifacts, uris[name], media_type, etag=etag)
