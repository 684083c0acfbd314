"""The final file of a result, out of its stored segments or beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cluster.records import Artifact, Handle, Rendition
from components.media.mux import remux
from deployments.artifacts import Stored, job_key
from deployments.call import Call
from deployments.film import read_renditions
from deployments.segments import folder


async def final_file(call: Call, files: Sequence[Stored]) -> Artifact:
    """The video with its pictures: for MP4 and MOV a stream copy of the segments (the init segment first), written
    under a key of this attempt; else the WebM that was coded beside them.

    Raises:
        MediaError: the segments are not those of one video of the requested length.
        Damaged: a segment is not what was written; the stage makes it new.
        NotFound: the attempt stored no pictures.
        Unavailable: the artifact store failed.
    """
    call.lease.check()
    request = call.request
    beside = await read_renditions(call.artifacts, folder(call.work.call))
    file = beside.video or await _joined(call, files)
    return Artifact(
        uri=file.uri,
        media_type=file.media_type,
        nbytes=file.nbytes,
        sha256=file.sha256,
        duration_s=request.frames / request.fps,
        frames=request.frames,
        width=request.width,
        height=request.height,
        thumbnail=beside.thumbnail,
        spritesheet=beside.spritesheet,
    )


async def _joined(call: Call, files: Sequence[Stored]) -> Rendition:
    request, container = call.request, call.request.output.container
    path = call.scratch / f"video.{container.value}"
    pieces = call.artifacts.pieces(files)
    await asyncio.to_thread(remux, pieces, path, frames=request.frames, container=container.value)
    ref, epoch = call.work.call.ref, call.work.call.epoch
    key = job_key(ref.job_id, "outputs", f"{ref.prefix}{epoch}.{container.value}")
    stored = await call.artifacts.put_file(key, path)
    return Rendition(stored.uri, container.media_type, stored.nbytes, stored.sha256, request.width, request.height)


def final_handle(video: Artifact) -> Handle:
    """The output port of the final stage."""
    return Handle(key=video.uri, kind="Artifact", uri=video.uri, nbytes=video.nbytes)
