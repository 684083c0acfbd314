"""The source of an extension, as the first part of its file."""

from __future__ import annotations

from cluster.chains import pieces
from components.media.clip import at_rate
from deployments.inputs import input_file
from deployments.parts import OUT, collect, store_parts
from deployments.room import Produced, Room
from deployments.segments import SegmentRows, SegmentWriter
from deployments.weights import Weights


class SourceStage:
    """A stored video → segments at the size and rate of its extension."""

    def __init__(self, weights: Weights) -> None:
        """Has none."""

    async def run(self, room: Room) -> Produced:
        request = room.request
        piece = pieces(request)[0]
        rows = SegmentRows(room)
        async with (
            input_file(room, request.video) as file,
            SegmentWriter(room.work, piece, room.artifacts, rows, room.scratch) as writer,
        ):
            frames = at_rate(file, request.fps, request.height, request.width)
            done = 0
            while (some := await room.compute(next, frames, None)) is not None:
                room.lease.advance(done, piece.frames)
                await writer.write(some)
                done += len(some)
            await writer.finish()
        return Produced(files={OUT: await store_parts(room, await collect(room, rows.files, piece.frames))})
