"""Reading a client's video: what it is, its last frames, and all of it at another rate and size.

Frames are upright, 8-bit RGB, and taken as they are: no frame is made up or left out but by `at_rate`. HDR is refused,
because without tone mapping it would look washed out, and with it unlike the source.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorTrc
from av.video.stream import VideoStream
from numpy.typing import NDArray

from components.errors import MediaError
from components.media.container import HEAD_NBYTES, probe_media, sniff
from components.media.prefix import resize

_HDR = frozenset({int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)})
_PIECE_FRAMES = 4


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """A whole, readable video. Sizes are pixels, upright."""

    media_type: str
    width: int
    height: int
    frames: int  # counted
    duration_s: float  # from the first frame to the end of the last
    fps: float  # the average
    has_audio: bool


def probe_clip(file: BinaryIO, *, max_pixels: int, max_duration_s: float, tail: int) -> ClipInfo:
    """Walks through an open, seekable file, and decodes its first frame and its last `tail` frames (or all).

    Raises:
        MediaError: no video, damaged or cut off, HDR, or more than a bound.
    """
    info = probe_media(file, max_pixels=max_pixels, max_duration_s=max_duration_s)
    if info.kind != "video":
        raise MediaError("The file is a sound; a video is needed.")
    with _opened(file) as (container, stream):
        starts, keys, end = _timeline(container, stream)
        if end - starts[0] > max_duration_s:
            raise MediaError(
                f"The video lasts {float(end - starts[0]):g} s; at most {max_duration_s:g} s are accepted."
            )
        has_audio = bool(container.streams.audio)
        shape = _last(container, stream, starts, keys, min(tail, len(starts)))[-1].shape
    duration_s = float(end - starts[0])
    return ClipInfo(
        media_type=info.media_type,
        width=shape[1],
        height=shape[0],
        frames=len(starts),
        duration_s=duration_s,
        fps=len(starts) / duration_s,
        has_audio=has_audio,
    )


def last_frames(file: BinaryIO, count: int, height: int, width: int) -> NDArray[np.uint8]:
    """A video's last frames, resized as `components.media.prefix.resize` does: uint8 [count, Y, X, 3].

    Raises:
        MediaError: it has fewer, or cannot be read.
    """
    with _opened(file) as (container, stream):
        starts, keys, _ = _timeline(container, stream)
        if len(starts) < count:
            raise MediaError(f"The video has {len(starts)} frames; at least {count} are needed.")
        frames = _last(container, stream, starts, keys, count)
    return np.stack([resize(frame_YXC, height, width) for frame_YXC in frames])


def frames_at(file: BinaryIO, fps: int) -> int:
    """How many frames `at_rate` gives. MediaError."""
    with _opened(file) as (container, stream):
        starts, _, end = _timeline(container, stream)
    return _ticks(starts, end, fps)


def at_rate(file: BinaryIO, fps: int, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """All of a video at a constant rate and another size, a few frames at a time: uint8 [f, Y, X, 3].

    At each moment it shows the newest frame of the source. MediaError.
    """
    piece: list[NDArray[np.uint8]] = []
    with _opened(file) as (container, stream):
        starts, _, end = _timeline(container, stream)
        total, made = _ticks(starts, end, fps), 0
        container.seek(0, stream=stream)
        shown: NDArray[np.uint8] | None = None
        for frame in _decoded(container, stream):
            begin = _time(frame.pts, stream)
            # Everything before this frame shows the one before.
            while shown is not None and made < total and starts[0] + Fraction(made, fps) < begin:
                piece.append(shown)
                made += 1
            shown = resize(_upright(frame), height, width)
            while len(piece) >= _PIECE_FRAMES:
                yield np.stack(piece[:_PIECE_FRAMES])
                del piece[:_PIECE_FRAMES]
        while shown is not None and made < total:
            piece.append(shown)
            made += 1
            if len(piece) >= _PIECE_FRAMES:
                yield np.stack(piece)
                piece = []
    if piece:
        yield np.stack(piece)


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The first video track of a file whose container is told by its bytes. MediaError."""
    file.seek(0)
    demuxer = sniff(file.read(HEAD_NBYTES))
    if demuxer is None:
        raise MediaError("The file is no known video; send MP4, MOV or WebM.")
    file.seek(0)
    try:
        with av.open(file, "r", format=demuxer) as container:
            if not container.streams.video or container.streams.video[0].codec_context is None:
                raise MediaError("The file has no video track that can be read.")
            yield container, container.streams.video[0]
    except FFmpegError as error:
        raise MediaError(f"The video is damaged or cut off: {error.strerror}.") from error


def _timeline(
    container: InputContainer, stream: VideoStream
) -> tuple[Sequence[Fraction], Sequence[Fraction], Fraction]:
    """The moments at which frames begin, in order, those of key frames, and the end, in seconds. MediaError."""
    starts: list[Fraction] = []
    keys: list[Fraction] = []
    end = Fraction(0)
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise MediaError("The video is cut off in the middle of a frame.")
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is None:
            raise MediaError("The video does not say when its frames are shown.")
        start = _time(packet.pts, stream)
        starts.append(start)
        if packet.is_keyframe:
            keys.append(start)
        end = max(end, start + _time(packet.duration or 0, stream))
    if not starts or not keys:
        raise MediaError("The video has no frames.")
    starts.sort()
    if end <= starts[-1]:  # the last frame's length is not told: that of an average one
        each = (starts[-1] - starts[0]) / (len(starts) - 1) if len(starts) > 1 else Fraction(1, 25)
        end = starts[-1] + each
    return starts, sorted(keys), end


def _last(
    container: InputContainer,
    stream: VideoStream,
    starts: Sequence[Fraction],
    keys: Sequence[Fraction],
    count: int,
) -> Sequence[NDArray[np.uint8]]:
    """Decoded from the key frame before them on. MediaError."""
    wanted = starts[-count]
    key = keys[max(0, bisect.bisect_right(keys, wanted) - 1)]
    container.seek(int(key / (stream.time_base or 1)), stream=stream)
    kept: deque[av.VideoFrame] = deque(maxlen=count)
    for frame in _decoded(container, stream):
        if _time(frame.pts, stream) >= wanted:
            kept.append(frame)
    if len(kept) < count or _time(kept[-1].pts, stream) != starts[-1]:
        raise MediaError("The video's last frames cannot be decoded; it is damaged or cut off.")
    return [_upright(frame) for frame in kept]


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise MediaError("The video is damaged: a frame cannot be decoded whole.")
        if int(frame.color_trc) in _HDR:
            raise MediaError("The video is HDR; send it in standard dynamic range.")
        yield frame


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """uint8 [Y, X, 3], turned as the file says."""
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def _time(ticks: int | None, stream: VideoStream) -> Fraction:
    return Fraction(ticks or 0) * (stream.time_base or Fraction(1))


def _ticks(starts: Sequence[Fraction], end: Fraction, fps: int) -> int:
    return max(1, round((end - starts[0]) * fps))
