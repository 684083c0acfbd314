"""Joining WebM files, each a part of one video."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import av
from av.error import FFmpegError
from av.video.stream import VideoStream

from components.errors import MediaError

_OPTIONS = {"cues_to_front": "1", "fflags": "+bitexact"}


def join_webm(parts: Iterable[str | os.PathLike[str]], out_path: str | os.PathLike[str], *, frames: int) -> None:
    """Stream-copies parts whose times follow each other into one file; the coded pictures are untouched.

    Args:
        parts: WebM files in order, each made by `WebmEncoder` with its `first_frame`.
        out_path: does not exist after any error.
        frames: how many there must be in all.

    Raises:
        MediaError: a part is damaged or holds no video, or the frames are not that many.
        OSError: a file cannot be read or written.
    """
    out = Path(out_path)
    copied = 0
    copy: VideoStream | None = None
    try:
        with av.open(out, "w", format="webm", options=_OPTIONS) as joined:
            for part in parts:
                with av.open(os.fspath(part), "r", format="matroska") as video:
                    if not video.streams.video:
                        raise MediaError("A part of the video holds no pictures.")
                    stream = video.streams.video[0]
                    if copy is None:
                        copy = joined.add_stream_from_template(stream)
                    for packet in video.demux(stream):
                        if packet.size:
                            packet.stream = copy
                            joined.mux(packet)
                            copied += 1
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
