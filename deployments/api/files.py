"""Stored files over HTTP, from a local disk or an object store: GET and HEAD, ranges, validators, redirects."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from cluster.errors import Damaged, Unavailable
from deployments.api.errors import plain_refusal
from deployments.api.schemas import ErrorBody
from deployments.artifacts import ArtifactStore

PIECE_NBYTES = 2**20
RETRY_S = 5.0
_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*")
_PLAIN = re.compile(r"[^A-Za-z0-9 ._()+-]")


def file_answers(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """What a route that answers with a stored file publishes; a media type may be a range ("image/*")."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {
        200: {"description": "The file.", "content": content},
        206: {"description": "The part of it that was asked for.", "content": content},
        304: {"description": "The client has it."},
        307: {"description": "A signed URL in the object store, good for a few minutes."},
        416: {"model": ErrorBody, "description": "Nothing of it is in the range."},
    }


async def file_response(
    request: Request,
    artifacts: ArtifactStore,
    uri: str,
    media_type: str,
    *,
    etag: str,
    filename: str | None = None,
    sha256: str | None = None,
) -> Response:
    """Answers with a stored file, or with where it may be fetched; `etag` names its bytes. A whole file whose hash is
    given ends short when it is damaged. NotFound when it is not there any more, Unavailable.
    """
    nbytes = await artifacts.size(uri)
    headers = {"etag": f'"{etag}"'}
    if _holds(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    disposition = None if filename is None else f'attachment; filename="{_PLAIN.sub("_", filename)}"'
    # A signed URL is good for GET alone.
    if request.method == "GET":
        url = await artifacts.signed_url(uri, media_type=media_type, disposition=disposition)
        if url is not None:
            return RedirectResponse(url, 307, headers={"cache-control": "no-store"})
    headers["accept-ranges"] = "bytes"
    if disposition is not None:
        headers["content-disposition"] = disposition
    start, end = 0, nbytes
    if (wanted := _range(request, headers["etag"], nbytes)) is not None:
        start, end = wanted
        if start >= end:
            message = f"The file has {nbytes} bytes; none of them is in the range that was asked for."
            return plain_refusal(
                request.url.path, 416, message, "invalid_range", {"content-range": f"bytes */{nbytes}"}
            )
        headers["content-range"] = f"bytes {start}-{end - 1}/{nbytes}"
    headers["content-length"] = str(end - start)
    status = 200 if wanted is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    file = await artifacts.open_input(uri)  # before the status is sent: it may be gone by now
    body = pieces(file, start, end, sha256 if end - start == nbytes else None)
    return StreamingResponse(body, status, headers=headers, media_type=media_type)


def _holds(request: Request, etag: str) -> bool:
    """Whether the client has these bytes already."""
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or etag in (item.strip().removeprefix("W/") for item in known.split(","))


def _range(request: Request, etag: str, nbytes: int) -> tuple[int, int] | None:
    """The one range that is asked for, empty when it cannot be satisfied; None: the whole file. Several ranges, and
    what is no range, are answered with the whole file, as RFC 9110 §14.2 allows.
    """
    if request.headers.get("if-range", etag) != etag:
        return None
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        return max(nbytes - int(match[2]), 0), nbytes
    first = int(match[1])
    last = int(match[2]) if match[2] else max(first, nbytes)
    return None if last < first else (min(first, nbytes), min(last + 1, nbytes))


async def pieces(file: BinaryIO, start: int, end: int, sha256: str | None) -> AsyncIterator[bytes]:
    """Bytes `start` to `end` of a stored file, closed at the end. One piece is in memory at a time, however slowly the
    client reads; the last one waits for the hash of all.

    Raises:
        Damaged: the file is cut off, or not what the hash says.
        Unavailable: it cannot be read now. (No OSError leaves here: the server would take it for the client's.)
    """
    digest = hashlib.sha256()
    with file:
        while start < end:
            piece = await asyncio.to_thread(_read, file, start, min(PIECE_NBYTES, end - start))
            digest.update(piece)
            start += len(piece)
            if start == end and sha256 is not None and digest.hexdigest() != sha256:
                raise Damaged("The stored file is damaged; it is not sent to its end.", retryable=False)
            yield piece


def _read(file: BinaryIO, start: int, nbytes: int) -> bytes:
    try:
        file.seek(start)
        piece = file.read(nbytes)
    except OSError as error:
        raise Unavailable("The artifact store cannot read a file to its end.", retry_after_s=RETRY_S) from error
    if not piece:
        raise Damaged("The stored file is cut off.", retryable=False)
    return piece
