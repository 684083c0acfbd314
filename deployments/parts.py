"""What the chunks of a result have stored so far, handed from each chunk to the next: a list of files, no pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import StageError
from cluster.records import Handle, decode, encode
from deployments.artifacts import Stored
from deployments.call import Call
from deployments.film import Pictures, read_pictures

KIND = "Part"
OUT, IN = "part", "before"  # ports


@dataclass(frozen=True, slots=True)
class Part:
    """One chunk's files."""

    init: Stored
    segments: tuple[Stored, ...]
    frames: int
    pictures: Pictures
    sound_from_s: float | None = None  # a source that is heard: its own time where it begins


@dataclass(frozen=True, slots=True)
class Parts:
    """Those of all chunks up to one, in order."""

    parts: tuple[Part, ...]


async def collect(call: Call, files: Sequence[Stored], frames: int, *, sound_from_s: float | None = None) -> Parts:
    """This chunk's part behind those of the chunks before it.

    Args:
        call: of the chunk.
        files: its init segment and its media segments.
        frames: in them.
        sound_from_s: as in `Part`.

    Raises:
        StageError, Damaged, NotFound, Unavailable: an earlier chunk's list, or this one's pictures, cannot be read.
    """
    before: tuple[Part, ...] = ()
    if (handle := call.work.inputs.get(IN)) is not None:
        before = (await read_parts(call, handle)).parts
    pictures = await read_pictures(call.artifacts, call.work.call)
    init, *segments = files
    return Parts((*before, Part(init, tuple(segments), frames, pictures, sound_from_s)))


async def read_parts(call: Call, handle: Handle) -> Parts:
    """A stored list. StageError, Damaged, NotFound, Unavailable."""
    if handle.kind != KIND:
        raise StageError(f"The handle of kind {handle.kind} is no list of parts.", retryable=False)
    return decode(Parts, json.loads(await call.artifacts.get_bytes(handle.uri, handle.sha256)))


async def store_parts(call: Call, parts: Parts) -> Handle:
    """Writes the list for the next chunk. Unavailable."""
    key = call.key(f"{OUT}.json")
    stored = await call.artifacts.put_bytes(key, json.dumps(encode(parts)).encode())
    return Handle(key=key, kind=KIND, uri=stored.uri, nbytes=stored.nbytes, sha256=stored.sha256)
