"""Frames of one chunk into stored segments, while they are decoded.

Each finished segment is written to the artifact store under a key of this attempt and told to the job store, which is
what the preview shows and what the final file is made of. The encoder runs on a thread of its own, beside the decoder
of the next frames; one piece of frames waits at most, so memory does not grow with the clip.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cluster.chains import Piece
from cluster.errors import StaleEpoch, Unavailable
from cluster.records import SegmentFile, StageCall, StageWork
from components.media.quality import h264_crf
from components.media.segments import Segment, SegmentEncoder, VideoQuality
from deployments.artifacts import ArtifactStore, Stored, job_key
from deployments.call import Call
from deployments.film import Film

INIT_NAME = "init.mp4"


def segment_name(index: int) -> str:
    """The file name of a media segment in its attempt's folder."""
    return f"{index}.m4s"


def folder(call: StageCall) -> str:
    """Where a call's segments lie; no other attempt ever writes there."""
    return job_key(call.ref.job_id, "outputs", f"preview/{call.ref.part}-{call.epoch}")


class Written(NamedTuple):
    """A segment as the job store is told of it, and the two files that it is made of."""

    segment: SegmentFile
    init: Stored
    media: Stored


class Rows(Protocol):
    """Learns of stored segments, in order."""

    async def add(self, segments: Iterable[Written]) -> None:
        """More of them are stored."""

    async def finish(self) -> None:
        """That was all."""


class SegmentRows:
    """One stage call's segments in the job store."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._files: dict[int, Stored] = {}  # -1 for the init segment
        self._untold: deque[SegmentFile] = deque()  # stored, but the job store was away

    @property
    def files(self) -> Sequence[Stored]:
        """The init segment and the media segments, in order."""
        return [file for _, file in sorted(self._files.items())]

    async def add(self, segments: Iterable[Written]) -> None:
        """Tells the job store, or later if that is away. A segment that it knows already changes nothing.

        Raises:
            StaleEpoch: somebody else owns the stage; what nobody knows of is removed.
        """
        for segment, init, media in segments:
            self._files |= {-1: init, segment.index: media}
            self._untold.append(segment)
        await self._tell()

    async def finish(self) -> None:
        """Waits until the job store knows every segment. StaleEpoch; or Revoked."""
        while self._untold:
            self._call.lease.check()
            await asyncio.sleep(await self._tell())

    async def _tell(self) -> float:
        """Tells the job store what it does not know yet; returns after how many seconds to try again, 0 when done."""
        while self._untold:
            try:
                await self._call.store.add_segment(self._call.work.call, self._untold[0])
            except Unavailable as error:
                return error.retry_after_s
            except StaleEpoch:
                await self._withdraw()
                raise
            self._untold.popleft()
        return 0.0

    async def _withdraw(self) -> None:
        """Removes what no row will ever name; the job's results may have been swept already."""
        names = [segment_name(segment.index) for segment in self._untold]
        if self._untold[0].index == 0:
            names.append(INIT_NAME)
        for name in names:
            await self._call.artifacts.delete_tree(f"{folder(self._call.work.call)}/{name}")


class SegmentWriter:
    """Encodes and stores the frames of one stage call's chunk, and what else is made of them; an async context."""

    def __init__(self, work: StageWork, piece: Piece, artifacts: ArtifactStore, rows: Rows, scratch: Path) -> None:
        """`piece` tells where the chunk lies in the video. MediaError when an encoder refuses."""
        request = work.request
        self._artifacts = artifacts
        self._rows = rows
        self._folder = folder(work.call)
        quality = VideoQuality(crf=h264_crf(request.output.quality))
        self._encoder = SegmentEncoder(
            request.height,
            request.width,
            request.fps,
            quality=quality,
            first_frame=piece.first_frame,
            first_segment=piece.first_segment,
        )
        self._film = Film(work, piece, artifacts, self._folder, scratch)
        self._thread = ThreadPoolExecutor(1, "encode")
        self._encoding: asyncio.Future[Sequence[Segment]] | None = None
        self._init: Stored | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Frees the encoders; frames that are still in them are lost."""
        # On the encoders' thread, behind whatever still runs there.
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._encoder.close)
        finally:
            await loop.run_in_executor(self._thread, self._film.close)
            self._thread.shutdown()

    async def write(self, frames_FYXC: NDArray[np.uint8]) -> None:
        """Gives frames to the encoder and stores what it finished of the frames before.

        Raises:
            MediaError: an encoder failed.
            StaleEpoch: somebody else owns the stage.
            Unavailable: the artifact store failed. (An absent job store is caught up with later.)
        """
        await self._store()
        loop = asyncio.get_running_loop()
        self._encoding = loop.run_in_executor(self._thread, self._encode, frames_FYXC)

    async def finish(self) -> None:
        """Ends the chunk. As `write`; and `Rows.finish`."""
        await self._store()
        self._encoding = asyncio.get_running_loop().run_in_executor(self._thread, self._encoder.finish)
        await self._store()
        pictures = await asyncio.get_running_loop().run_in_executor(self._thread, self._film.finish)
        await self._film.store(*pictures)
        await self._rows.finish()

    def _encode(self, frames_FYXC: NDArray[np.uint8]) -> Sequence[Segment]:
        self._film.add(frames_FYXC)
        return self._encoder.encode(frames_FYXC)

    async def _store(self) -> None:
        if self._encoding is None:
            return
        encoding, self._encoding = self._encoding, None
        if segments := await encoding:
            await self._rows.add(await self._put(segments))

    async def _put(self, segments: Iterable[Segment]) -> Sequence[Written]:
        if self._init is None:
            self._init = await self._artifacts.put_bytes(f"{self._folder}/{INIT_NAME}", self._encoder.init)
        written = []
        for segment in segments:
            stored = await self._artifacts.put_bytes(f"{self._folder}/{segment_name(segment.index)}", segment.data)
            told = SegmentFile(
                index=segment.index,
                uri=stored.uri,
                init_uri=self._init.uri,
                nbytes=stored.nbytes,
                first_frame=segment.first_frame,
                frames=segment.frames,
                duration_s=segment.duration_s,
            )
            written.append(Written(told, self._init, stored))
        return written
