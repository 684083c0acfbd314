"""Receiving an uploaded file: bounded, told by its bytes, probed, stored, and only then a row."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from cluster.config import Config
from cluster.errors import MediaRejected
from cluster.files import FileInfo, NewFile, UploadedFile
from cluster.store.base import JobStore
from components.errors import MediaError
from components.media import container, image
from deployments.api.commits import Commits, removed_when_refused
from deployments.artifacts import ArtifactStore, file_prefix

PIECE_NBYTES = 2**20


class Uploads:
    """Turns uploads into stored files."""

    def __init__(self, store: JobStore, artifacts: ArtifactStore, config: Config) -> None:
        self._store = store
        self._artifacts = artifacts
        self._limits = config.files
        self._media = config.media
        self._commits = Commits()

    async def accept(
        self, file: BinaryIO, nbytes: int, *, filename: str, purpose: str, keep_s: float | None, tenant: str
    ) -> UploadedFile:
        """Stores an open, seekable file of `nbytes` bytes; it is read a piece at a time.

        Raises:
            MediaRejected: too large, or no image, video or sound that can be read; nothing was stored.
            Unavailable: the job store or the artifact store is not reachable.
        """
        info = await asyncio.to_thread(self._probe, file, nbytes)
        await asyncio.to_thread(file.seek, 0)
        pieces = iter(partial(file.read, PIECE_NBYTES), b"")
        keep_s = min(keep_s or self._limits.keep_s, self._limits.keep_s)
        return await self._commits.run(self._store_file(pieces, filename, purpose, info, keep_s, tenant))

    async def _store_file(
        self, pieces: Iterator[bytes], filename: str, purpose: str, info: FileInfo, keep_s: float, tenant: str
    ) -> UploadedFile:
        """Stores the file, then the row. As `accept`."""
        file_id = f"file-{uuid.uuid4()}"
        async with removed_when_refused(self._artifacts, file_prefix(file_id)):
            stored = await self._artifacts.put_pieces(f"{file_prefix(file_id)}/data", pieces)
            new = NewFile(file_id, filename, purpose, stored.uri, stored.nbytes, stored.sha256, info, keep_s)
            return await self._store.create_file(tenant, new)

    def _probe(self, file: BinaryIO, nbytes: int) -> FileInfo:
        try:
            _check_size(nbytes, self._limits.max_nbytes)
            file.seek(0)
            if container.sniff(file.read(container.HEAD_NBYTES)) is not None:
                media = container.probe_media(
                    file, max_pixels=self._media.max_image_pixels, max_duration_s=self._limits.max_duration_s
                )
                return FileInfo(media.kind, media.media_type, media.width, media.height, media.duration_s)
            _check_size(nbytes, self._media.max_file_nbytes)
            file.seek(0)
            data = file.read()
            if data and image.sniff(data) is None:
                formats = f"{image.FORMATS}, {container.FORMATS}"
                raise MediaError(f"The file is no image, video or sound of a known format; send {formats}.")
            picture = image.probe(data, max_pixels=self._media.max_image_pixels)
            return FileInfo("image", picture.media_type, picture.width, picture.height)
        except MediaError as error:
            raise MediaRejected(f"file: {error}", param="file") from error


def _check_size(nbytes: int, limit: int) -> None:
    if nbytes > limit:
        raise MediaError(f"It has {nbytes} bytes; the limit is {limit}.")
