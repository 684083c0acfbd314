"""A client's video as models take it: upright, in 8-bit RGB, at the model's frame rate, a few frames in memory.

The file is first walked packet by packet, which decodes nothing: that gives every frame's time, whatever the headers
say. Frames are then chosen on a grid of the wanted rate that ends at the video's last frame, so the end is exact, a
video of that very rate is taken frame by frame, and others (variable rates too) keep their speed. Decoding starts at
the last key frame before the first frame that is wanted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from components.errors import MediaError
from components.media.container import HEAD_NBYTES, MAX_STREAMS, PROBE, sniff

_VIDEO_DEMUXERS = frozenset({"mp4", "matroska"})
_MAX_PACKETS = 1_000_000
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics, ITU-T H.273
_HD_ROWS = 720  # from here on untagged video is BT.709, below BT.601, as players assume
_UNSPECIFIED = 2


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source video is. Sizes are as it is shown: rotated, with square pixels."""

    width: int
    height: int
    frames: int
    duration_s: float
    sound: bool  # has a track that can be decoded


class SourceVideo:
    """A video file, indexed. Reads the file again on every call, so calls must not be mixed."""

    def __init__(self, file: BinaryIO, *, max_pixels: int, max_duration_s: float) -> None:
        """Walks the file and decodes its first frame.

        Args:
            file: open, seekable; stays the caller's.
            max_pixels: of a frame.
            max_duration_s: of the video.

        Raises:
            MediaError: no MP4, MOV, WebM or Matroska with pictures; damaged or cut off; beyond a bound; HDR.
        """
        self._file = file
        self._max_pixels = max_pixels
        try:
            self._index(max_duration_s)
            first = next(self._decode(self._times[:1]))[1]
        except FFmpegError as error:
            raise _damaged(error) from error
        if transfer := _HDR.get(int(first.color_trc)):
            raise MediaError(f"The video is HDR ({transfer}); convert it to standard dynamic range first.")
        height, width = _upright(np.empty((first.height, self._square_width(first), 0), np.uint8), first).shape[:2]
        self.info = SourceInfo(
            width=width,
            height=height,
            frames=len(self._times),
            duration_s=float((self._times[-1] - self._times[0]) * self._tick_s) + self._last_s,
            sound=self._sound,
        )

    def count(self, fps: int) -> int:
        """How many frames `whole` gives."""
        return len(self._grid(fps, None))

    def begins_s(self, fps: int) -> float:
        """When the first of those is shown, in the file's own time."""
        return float(self._times[-1] * self._tick_s - Fraction(self.count(fps) - 1, fps))

    def tail(self, frames: int, *, height: int, width: int, fps: int) -> NDArray[np.uint8]:
        """The last frames, [F, Y, X, 3], nearest neighbour, the aspect not kept, as the original resizes them.

        Raises:
            MediaError: the video is shorter, or its end cannot be decoded.
        """
        chosen = self._grid(fps, frames)
        if len(chosen) < frames:
            raise MediaError(f"The video lasts {self.info.duration_s:.2f} s; at least {frames / fps:.2f} s are needed.")
        shown = [resize(_pixels(frame), height, width) for frame in self._shown(chosen)]
        return np.stack(shown)

    def whole(self, *, height: int, width: int, fps: int) -> Iterator[NDArray[np.uint8]]:
        """All frames one by one, [1, Y, X, 3], smoothly resized, the aspect not kept. MediaError."""
        chosen = self._grid(fps, None)
        for frame in self._shown(chosen):
            quarter = frame.rotation % 180 == 90
            size = (height, width) if quarter else (width, height)
            yield _pixels(frame, size)[None]

    def _index(self, max_duration_s: float) -> None:
        """Times of all frames in ticks, sorted, and after how many packets a decoder may start for each."""
        times: list[int] = []
        found = 0
        keys: list[tuple[int, int]] = []  # (time, packets before it) of the key frames, in the order of the file
        with self._open() as container:
            stream = self._stream(container)
            self._tick_s = stream.time_base or Fraction(1)
            self._sound = any(s.codec_context is not None for s in container.streams.audio)
            announced, duration = stream.frames, 0
            for number, packet in enumerate(self._packets(container, stream)):
                found += 1
                if packet.pts is None or packet.is_discard:
                    continue
                times.append(packet.pts)
                duration = packet.duration or duration
                if packet.is_keyframe:
                    keys.append((packet.pts, number))
        if found < announced:
            raise MediaError(f"The video is cut off after {found} of {announced} frames; send the whole file.")
        if not times:
            raise MediaError("The video has no frames; send the whole file.")
        self._times, self._keys = sorted(times), keys
        self._last_s = float(duration * self._tick_s)
        if (span_s := float((self._times[-1] - self._times[0]) * self._tick_s)) > max_duration_s:
            raise MediaError(f"The video lasts {span_s:g} s; at most {max_duration_s:g} s are accepted.")

    def _grid(self, fps: int, frames: int | None) -> list[int]:
        """The times of the frames to show, one per grid point, ascending; at most `frames` from the end."""
        first, last = self._times[0], self._times[-1]
        step = Fraction(1, fps) / self._tick_s
        points = int((last - first) / step + Fraction(1, 2)) + 1
        points = points if frames is None else min(points, frames)
        return [self._nearest(last - index * step) for index in reversed(range(points))]

    def _nearest(self, time: Fraction) -> int:
        at = bisect_left(self._times, time)
        around = self._times[max(0, at - 1) : at + 1]
        return min(around, key=lambda candidate: abs(candidate - time))

    def _shown(self, chosen: Sequence[int]) -> Iterator[VideoFrame]:
        """The frames of ascending times, as often as each is there. MediaError when one cannot be decoded."""
        counts = Counter(chosen)
        try:
            for time, frame in self._decode(sorted(counts)):
                for _ in range(counts[time]):
                    yield frame
        except FFmpegError as error:
            raise _damaged(error) from error

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames of distinct ascending times, each once."""
        start = max((number for time, number in self._keys if time <= wanted[0]), default=0)
        left = set(wanted)
        with self._open() as container:
            stream = self._stream(container)
            for number, packet in enumerate(self._packets(container, stream, flush=True)):
                if number < start:
                    continue
                for frame in packet.decode():
                    if frame.pts in left:
                        left.remove(frame.pts)
                        self._refuse_beyond(frame.width, frame.height)
                        yield frame.pts, frame
                if not left:
                    return
        raise MediaError("A part of the video cannot be decoded; send the whole file.")

    def _open(self) -> InputContainer:
        self._file.seek(0)
        demuxer = sniff(self._file.read(HEAD_NBYTES))
        if demuxer not in _VIDEO_DEMUXERS:
            raise MediaError("The file is no known video; send MP4, MOV, WebM or Matroska.")
        self._file.seek(0)
        return av.open(self._file, "r", format=demuxer, options=PROBE)

    def _stream(self, container: InputContainer) -> VideoStream:
        """The first track of moving pictures, its decoder bounded."""
        if len(container.streams) > MAX_STREAMS:
            raise MediaError(f"The file has {len(container.streams)} streams; at most {MAX_STREAMS} are accepted.")
        for stream in container.streams.video:
            codec: Any = stream.codec_context  # None where the codec is unknown
            if codec is not None and not stream.disposition & av.stream.Disposition.attached_pic:
                self._refuse_beyond(codec.width, codec.height)
                codec.options = {"max_pixels": str(self._max_pixels)}  # the size may change on the way
                return stream
        raise MediaError("The file has no pictures that can be read.")

    def _packets(self, container: InputContainer, stream: VideoStream, *, flush: bool = False) -> Iterator[Any]:
        """The track's packets; with `flush` the empty one behind them too, which empties a decoder."""
        for number, packet in enumerate(container.demux(stream)):
            if packet.is_corrupt:
                raise MediaError("The video is cut off in the middle of a frame; send the whole file.")
            if number >= _MAX_PACKETS:
                raise MediaError(f"The video has more than {_MAX_PACKETS} frames.")
            if packet.size or flush:
                yield packet

    def _refuse_beyond(self, width: int, height: int) -> None:
        if not 0 < width * height <= self._max_pixels:
            raise MediaError(f"The pictures are {width}×{height}; at most {self._max_pixels} pixels are accepted.")

    def _square_width(self, frame: VideoFrame) -> int:
        """The width with square pixels."""
        with self._open() as container:
            ratio = self._stream(container).sample_aspect_ratio
        return max(1, round(frame.width * ratio)) if ratio else frame.width


def resize(frame_YXC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Nearest neighbour to a size, the aspect not kept, as in the original: pixel i comes from ⌊i · old / new⌋.

    The products are taken in fp32, as PyTorch's nearest interpolation takes them.
    """
    rows, columns = (
        np.minimum((np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))).astype(np.int64), old - 1)
        for old, new in zip(frame_YXC.shape[:2], (height, width), strict=True)
    )
    resized_YXC: NDArray[np.uint8] = frame_YXC[rows[:, None], columns[None, :]]
    return resized_YXC


def _pixels(frame: VideoFrame, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Upright 8-bit RGB; `size` is (width, height) before the rotation."""
    width, height = size or (frame.width, frame.height)
    tagged = int(frame.colorspace) != _UNSPECIFIED
    matrix = None if tagged else (Colorspace.ITU709 if frame.height >= _HD_ROWS else Colorspace.ITU601)
    picture = frame.reformat(
        width, height, "rgb24", src_colorspace=matrix, interpolation=Interpolation.BICUBIC if size else None
    )
    return _upright(picture.to_ndarray().astype(np.uint8, copy=False), frame)


def _upright(pixels_YXC: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    """Turned as the file's display matrix asks, by quarters; counter-clockwise."""
    return np.rot90(pixels_YXC, round(frame.rotation / 90) % 4)


def _damaged(error: FFmpegError) -> MediaError:
    return MediaError(f"The video is damaged or cut off: {error.strerror}.")
