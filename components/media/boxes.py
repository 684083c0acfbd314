"""The box structure of MP4 files (ISO/IEC 14496-12 §4.2): 32-bit size, four-letter type, payload."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from components.errors import MediaError

_DAMAGED = "The MP4 is damaged: a box does not end where it says."


def header(data: bytes | bytearray | memoryview) -> tuple[str, int, int] | None:
    """(type, header length, total length) of the box that `data` begins with; None when more bytes are needed.

    A total of 0 means "to the end of the file". MediaError when the lengths contradict each other.
    """
    if len(data) < 8:
        return None
    total, kind = struct.unpack_from(">I4s", data)
    length = 8
    if total == 1:
        if len(data) < 16:
            return None
        (total,) = struct.unpack_from(">Q", data, 8)
        length = 16
    if 0 < total < length:
        raise MediaError(_DAMAGED)
    return kind.decode("latin-1"), length, total


def children(data: bytes | memoryview) -> Iterator[tuple[str, memoryview]]:
    """(type, payload) of every box in `data`, which holds whole boxes. MediaError."""
    view = memoryview(data)
    while view:
        found = header(view)
        if found is None:
            raise MediaError(_DAMAGED)
        kind, length, total = found
        total = total or len(view)
        if total > len(view):
            raise MediaError(_DAMAGED)
        yield kind, view[length:total]
        view = view[total:]


def top_level(file: BinaryIO) -> Iterator[str]:
    """Types of a file's outermost boxes in order, read by seeking: payloads are never loaded. MediaError."""
    end = file.seek(0, os.SEEK_END)
    position = 0
    while position < end:
        file.seek(position)
        found = header(file.read(16))
        if found is None:
            raise MediaError(_DAMAGED)
        kind, _, total = found
        yield kind
        position = position + total if total else end
    if position != end:
        raise MediaError(_DAMAGED)


def fragment_frames(moof: bytes | memoryview) -> int:
    """Samples in a movie fragment (the whole `moof` box): the sum of its runs' sample counts. MediaError."""
    frames = 0
    for _, fragment in children(moof):
        for kind, track in children(fragment):
            if kind == "traf":
                frames += sum(
                    int.from_bytes(run[4:8], "big")  # version and flags, then sample_count
                    for name, run in children(track)
                    if name == "trun"
                )
    return frames


class BoxSplitter:
    """A write-only sink that gives back whole boxes as soon as they are complete."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        """Takes the muxer's bytes, in pieces of any size."""
        self._pending += data
        return len(data)

    def take(self) -> list[tuple[str, bytes]]:
        """(type, whole box) of every box completed since the last call."""
        done = []
        while (found := header(self._pending)) is not None:
            kind, _, total = found
            if total == 0 or total > len(self._pending):
                break
            done.append((kind, bytes(memoryview(self._pending)[:total])))
            del self._pending[:total]
        return done
