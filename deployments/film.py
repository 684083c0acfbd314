"""What is made of a chunk's frames beside its segments: pictures for the thumbnail and the spritesheet and, where asked
for, a WebM.

Pictures are picked from the frames on their way to the encoder, so nobody ever decodes a video to show one. WebM is
coded from the same frames on the same thread: it costs no second decode, no second loss and no time after the last
frame. What is not finished before the last chunk is working files; they may be made in another process than the one
that publishes the result, so a list of them lies beside them.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.chains import Piece
from cluster.records import Container, Rendition, StageCall, StageWork, decode, encode
from components.media.quality import vp9_crf
from components.media.stills import Still, Stills
from components.media.webm import WebmEncoder
from deployments.artifacts import ArtifactStore, Stored, job_key

LIST_NAME = "film.json"


@dataclass(frozen=True, slots=True)
class Pictures:
    """The stored files of one chunk; each is None where the chunk has nothing for it."""

    thumbnail: Rendition | None  # finished: the middle of the video is in this chunk
    strip: Stored | None  # `picked` frames for the sheet, one below the other
    picked: int
    video: Stored | None  # VP9, this chunk's part


def _work_key(call: StageCall, name: str) -> str:
    return job_key(call.ref.job_id, "work", f"film-{call.ref.part}-{call.epoch}/{name}")


class Film:
    """One attempt's files while they are made."""

    def __init__(self, work: StageWork, piece: Piece, artifacts: ArtifactStore, folder: str, scratch: Path) -> None:
        """`folder` is the attempt's among the artifacts, `scratch` a local one. MediaError when an encoder refuses."""
        request = work.request
        self._call = work.call
        self._artifacts = artifacts
        self._folder = folder
        self._scratch = tempfile.TemporaryDirectory(prefix="film-", dir=scratch)
        self._path = Path(self._scratch.name) / "video.webm"
        self._stills = Stills(request.frames, piece.first_frame)
        self._webm: WebmEncoder | None = None
        if request.output.container is Container.WEBM:
            crf = vp9_crf(request.output.quality)
            self._webm = WebmEncoder(
                self._path, request.height, request.width, request.fps, crf=crf, first_frame=piece.first_frame
            )

    def add(self, frames_FYXC: NDArray[np.uint8]) -> None:
        """Takes the next frames. MediaError, OSError (disk)."""
        self._stills.add(frames_FYXC)
        if self._webm is not None:
            self._webm.add(frames_FYXC)

    def finish(self) -> tuple[Still | None, Still | None]:
        """After the last frame: thumbnail and strip. MediaError, OSError."""
        if self._webm is not None:
            self._webm.finish()
        return self._stills.thumbnail(), self._stills.strip()

    async def store(self, thumbnail: Still | None, strip: Still | None) -> None:
        """Writes everything, the list last. Unavailable, OSError."""
        video = cells = shown = None
        if self._webm is not None:
            video = await self._artifacts.put_file(_work_key(self._call, "video.webm"), self._path)
        if strip is not None:
            cells = await self._artifacts.put_bytes(_work_key(self._call, "strip.png"), strip.data)
        if thumbnail is not None:
            shown = await store_still(self._artifacts, f"{self._folder}/thumbnail.webp", thumbnail)
        made = encode(Pictures(shown, cells, self._stills.picked, video))
        await self._artifacts.put_bytes(_work_key(self._call, LIST_NAME), json.dumps(made).encode())

    def close(self) -> None:
        """Frees the encoder and the scratch file. MediaError."""
        try:
            if self._webm is not None:
                self._webm.close()
        finally:
            self._scratch.cleanup()


async def store_still(artifacts: ArtifactStore, key: str, still: Still) -> Rendition:
    """Writes a picture. Unavailable."""
    stored = await artifacts.put_bytes(key, still.data)
    return Rendition(stored.uri, still.media_type, stored.nbytes, stored.sha256, still.width, still.height)


async def read_pictures(artifacts: ArtifactStore, call: StageCall) -> Pictures:
    """The files that an attempt made. NotFound, Unavailable."""
    return decode(Pictures, json.loads(await artifacts.get_bytes(artifacts.uri(_work_key(call, LIST_NAME)))))
