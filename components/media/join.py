"""Joining WebM files, each a part of one video."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from components.errors import MediaError
from components.media.mux import assigned
from components.media.soundtrack import Sound, copy_pictures

_OPTIONS = {"cues_to_front": "1", "fflags": "+bitexact"}


def join_webm(
    parts: Sequence[str | os.PathLike[str]],
    out_path: str | os.PathLike[str],
    *,
    frames: int,
    sound: Sound | None = None,
) -> None:
    """Stream-copies parts whose times follow each other into one file; the coded pictures are untouched.

    Args:
        parts: WebM files in order, each made by `WebmEncoder` with its `first_frame`.
        out_path: does not exist after any error.
        frames: how many there must be in all.
        sound: becomes Opus beside them.

    Raises:
        MediaError: a part is damaged or holds no video, the frames are not that many, or the sound cannot be read.
        OSError: a file cannot be read or written.
    """
    out = Path(out_path)
    try:
        with av.open(out, "w", format="webm", options=_OPTIONS) as joined:
            with _opened(parts[0]) as (_, stream):
                copy = joined.add_stream_from_template(stream)
            copied = copy_pictures(joined, assigned(_packets(parts), copy), sound)
        if copied != frames:
            raise MediaError(f"The parts hold {copied} frames; {frames} were expected.")
    except FFmpegError as error:
        out.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise
        raise MediaError(f"The parts cannot be joined: {error.strerror}.") from error
    except BaseException:
        out.unlink(missing_ok=True)
        raise


@contextmanager
def _opened(part: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, VideoStream]]:
    with av.open(os.fspath(part), "r", format="matroska") as video:
        if not video.streams.video:
            raise MediaError("A part of the video holds no pictures.")
        yield video, video.streams.video[0]


def _packets(parts: Iterable[str | os.PathLike[str]]) -> Iterator[Packet[VideoStream]]:
    for part in parts:
        with _opened(part) as (video, stream):
            yield from (packet for packet in video.demux(stream) if packet.size)
