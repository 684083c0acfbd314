"""The source of an extension, as the first part of its file."""

from __future__ import annotations

from typing import BinaryIO

import torch

from cluster.chains import pieces, prefix_frames
from cluster.config import MediaLimits
from cluster.records import Request
from cluster.registry import MODELS
from components.media.source import SourceVideo
from components.values import Frames
from deployments.inputs import input_file
from deployments.parts import OUT, collect, store_parts
from deployments.room import Produced, Room
from deployments.segments import SegmentRows, SegmentWriter
from deployments.weights import Weights


class SourceStage:
    """A stored video → segments at the size and rate of its extension; the final stage lays its sound under them."""

    def __init__(self, weights: Weights) -> None:
        """Has none."""
        self._media = weights.config.media

    async def run(self, room: Room) -> Produced:
        request = room.request
        piece = pieces(request)[0]
        rows = SegmentRows(room)
        async with (
            input_file(room, request.video) as file,
            SegmentWriter(room.work, piece, room.artifacts, rows, room.scratch) as writer,
        ):
            video = await room.compute(open_source, request, file, self._media)
            frames = video.whole(height=request.height, width=request.width, fps=request.fps)
            done = 0
            while (some := await room.compute(next, frames, None)) is not None:
                room.lease.advance(done, piece.frames)
                await writer.write(some)
                done += len(some)
            await writer.finish()
        sound_from_s = video.begins_s(request.fps) if video.info.sound else None
        parts = await collect(room, rows.files, piece.frames, sound_from_s=sound_from_s)
        return Produced(files={OUT: await store_parts(room, parts)})


def open_source(request: Request, file: BinaryIO, limits: MediaLimits) -> SourceVideo:
    """The stored video that a request continues. MediaError."""
    longest_s = MODELS[request.model].limits.max_media_s
    return SourceVideo(file, max_pixels=limits.max_image_pixels, max_duration_s=longest_s)


def prefix_of(request: Request, file: BinaryIO, limits: MediaLimits) -> Frames:
    """The end of a stored video at the size of the new one. MediaError."""
    size = {"height": request.height, "width": request.width, "fps": request.fps}
    tail = open_source(request, file, limits).tail(prefix_frames(request), **size)
    return Frames(torch.from_numpy(tail))
