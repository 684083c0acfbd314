"""The final file of a result, out of the stored parts of all its chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path

from cluster.errors import Damaged
from cluster.records import Artifact, Container, Handle, Rendition
from components.media.join import join_webm
from components.media.mix import Heard
from components.media.mux import remux
from components.media.soundtrack import Sound
from components.media.stills import spritesheet
from deployments.artifacts import Stored, job_key
from deployments.call import Call
from deployments.film import store_still
from deployments.inputs import input_file
from deployments.parts import Part, Parts
from deployments.segments import folder


async def final_file(call: Call, parts: Parts) -> Artifact:
    """The video with its pictures, written under keys of this attempt. What is seen is a stream copy: of the segments
    (MP4, MOV) or of what was coded beside them (WebM).

    Raises:
        MediaError: the parts are not those of one video of the requested length.
        Damaged: a part is not what was written; the stage makes it new.
        NotFound: a part is gone.
        Unavailable: the artifact store failed.
    """
    call.lease.check()
    request = call.request
    thumbnail, sheet = await _pictures(call, parts.parts)
    file = await _joined(call, parts.parts)
    return Artifact(
        uri=file.uri,
        media_type=file.media_type,
        nbytes=file.nbytes,
        sha256=file.sha256,
        duration_s=request.frames / request.fps,
        frames=request.frames,
        width=request.width,
        height=request.height,
        thumbnail=thumbnail,
        spritesheet=sheet,
    )


async def _pictures(call: Call, parts: Sequence[Part]) -> tuple[Rendition | None, Rendition]:
    strips = [(part.pictures.strip, part.pictures.picked) for part in parts]
    data = [(await call.artifacts.get_bytes(s.uri, s.sha256), picked) for s, picked in strips if s is not None]
    sheet = await asyncio.to_thread(spritesheet, data, call.request.frames)
    stored = await store_still(call.artifacts, f"{folder(call.work.call)}/spritesheet.jpg", sheet)
    return next((part.pictures.thumbnail for part in parts if part.pictures.thumbnail), None), stored


async def _joined(call: Call, parts: Sequence[Part]) -> Rendition:
    request, container = call.request, call.request.output.container
    path = call.scratch / f"video.{container.value}"
    async with _sound(call, parts) as sound:
        if container is Container.WEBM:
            videos = [part.pictures.video for part in parts]
            copies = await _copied(call, [video for video in videos if video is not None])
            await asyncio.to_thread(join_webm, copies, path, frames=request.frames, sound=sound)
        else:
            pieces = call.artifacts.pieces(_stream(parts))
            await asyncio.to_thread(remux, pieces, path, frames=request.frames, container=container.value, sound=sound)
    ref, epoch = call.work.call.ref, call.work.call.epoch
    key = job_key(ref.job_id, "outputs", f"{ref.prefix}{epoch}.{container.value}")
    stored = await call.artifacts.put_file(key, path)
    return Rendition(stored.uri, container.media_type, stored.nbytes, stored.sha256, request.width, request.height)


@asynccontextmanager
async def _sound(call: Call, parts: Sequence[Part]) -> AsyncIterator[Sound | None]:
    """All voices at once, as the audio encoder hears them; or the sound of a source, as long as that is seen."""
    request = call.request
    async with AsyncExitStack() as stack:
        heard: list[Heard] = []
        for voice in request.audio:
            file = await stack.enter_async_context(input_file(call, voice))
            heard.append(Heard(file, Fraction(request.frames, request.fps)))
        if (begins_s := parts[0].sound_from_s) is not None:
            file = await stack.enter_async_context(input_file(call, request.video))
            heard.append(Heard(file, Fraction(parts[0].frames, request.fps), begins_s))
        yield Sound(heard, request.fps) if heard else None


def _stream(parts: Sequence[Part]) -> Iterator[Stored]:
    """One init segment, which all chunks share, and everybody's media segments. Damaged."""
    first = parts[0].init
    yield first
    for part in parts:
        if part.init.sha256 != first.sha256:
            raise Damaged("A chunk is encoded with other parameters than the first.", retryable=False)
        yield from part.segments


async def _copied(call: Call, files: Sequence[Stored]) -> Sequence[Path]:
    """Local copies. Damaged, NotFound, Unavailable."""
    paths = []
    for index, file in enumerate(files):
        path = call.scratch / f"part-{index}"
        with path.open("wb") as out:
            await asyncio.to_thread(out.writelines, call.artifacts.pieces([file]))
        paths.append(path)
    return paths


def final_handle(video: Artifact) -> Handle:
    """The output port of the final stage."""
    return Handle(key=video.uri, kind="Artifact", uri=video.uri, nbytes=video.nbytes)
