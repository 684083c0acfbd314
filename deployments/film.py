"""What is made of a result's frames beside its segments: a thumbnail, a spritesheet and, where asked for, a WebM.

Pictures are picked from the frames on their way to the encoder, so nobody ever decodes a video to show one. WebM is
coded from the same frames on the same thread: it costs no second decode, no second loss and no time after the last
frame. The files lie with the attempt's segments. They may be made in another process than the one that publishes the
result, so a list of them lies there too.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.records import Container, Rendition, Request, decode, encode
from components.media.quality import vp9_crf
from components.media.stills import Still, Stills
from components.media.webm import WebmEncoder
from deployments.artifacts import ArtifactStore

LIST_NAME = "film.json"


@dataclass(frozen=True, slots=True)
class Renditions:
    """The stored files. `video` is None where the video is a stream copy of the segments."""

    thumbnail: Rendition
    spritesheet: Rendition
    video: Rendition | None


class Film:
    """One attempt's files while they are made."""

    def __init__(self, request: Request, artifacts: ArtifactStore, folder: str, scratch: Path) -> None:
        """`folder` is the attempt's among the artifacts, `scratch` a local one. MediaError when an encoder refuses."""
        self._request = request
        self._artifacts = artifacts
        self._folder = folder
        self._scratch = tempfile.TemporaryDirectory(prefix="film-", dir=scratch)
        self._path = Path(self._scratch.name) / "video.webm"
        self._stills = Stills(request.frames)
        self._webm: WebmEncoder | None = None
        if request.output.container is Container.WEBM:
            crf = vp9_crf(request.output.quality)
            self._webm = WebmEncoder(self._path, request.height, request.width, request.fps, crf=crf)

    def add(self, frames_FYXC: NDArray[np.uint8]) -> None:
        """Takes the next frames. MediaError, OSError (disk)."""
        self._stills.add(frames_FYXC)
        if self._webm is not None:
            self._webm.add(frames_FYXC)

    def finish(self) -> tuple[Still, Still]:
        """After the last frame: thumbnail and spritesheet. MediaError, OSError; ValueError when frames are missing."""
        if self._webm is not None:
            self._webm.finish()
        return self._stills.thumbnail(), self._stills.spritesheet()

    async def store(self, thumbnail: Still, spritesheet: Still) -> None:
        """Writes everything, the list last. Unavailable, OSError."""
        video = None
        if self._webm is not None:
            stored = await self._artifacts.put_file(f"{self._folder}/video.webm", self._path)
            size = self._request.width, self._request.height
            video = Rendition(stored.uri, Container.WEBM.media_type, stored.nbytes, stored.sha256, *size)
        pictures = self._keep("thumbnail.webp", thumbnail), self._keep("spritesheet.jpg", spritesheet)
        made = Renditions(*await asyncio.gather(*pictures), video)
        await self._artifacts.put_bytes(f"{self._folder}/{LIST_NAME}", json.dumps(encode(made)).encode())

    def close(self) -> None:
        """Frees the encoder and the scratch file. MediaError."""
        try:
            if self._webm is not None:
                self._webm.close()
        finally:
            self._scratch.cleanup()

    async def _keep(self, name: str, still: Still) -> Rendition:
        stored = await self._artifacts.put_bytes(f"{self._folder}/{name}", still.data)
        return Rendition(stored.uri, still.media_type, stored.nbytes, stored.sha256, still.width, still.height)


async def read_renditions(artifacts: ArtifactStore, folder: str) -> Renditions:
    """The files that an attempt made. NotFound, Unavailable."""
    return decode(Renditions, json.loads(await artifacts.get_bytes(artifacts.uri(f"{folder}/{LIST_NAME}"))))
