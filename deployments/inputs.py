"""A job's input files, as they were stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from cluster.errors import NotFound, StageError
from cluster.records import Media
from deployments.call import Call

_GONE = "A stored input of the job is gone; send the request again."


async def input_bytes(call: Call, media: Media) -> bytes:
    """All of it. StageError, Damaged, Unavailable."""
    try:
        return await call.artifacts.get_bytes(media.uri, media.sha256)
    except NotFound as error:
        raise StageError(_GONE, retryable=False) from error


@asynccontextmanager
async def input_file(call: Call, media: Media | None) -> AsyncIterator[BinaryIO]:
    """An open, seekable file; its reads block. StageError, Damaged, Unavailable."""
    if media is None:
        raise StageError("The job has no such input.", retryable=False)
    try:
        file = await call.artifacts.open_input(media.uri)
    except NotFound as error:
        raise StageError(_GONE, retryable=False) from error
    try:
        yield file
    finally:
        await asyncio.to_thread(file.close)
