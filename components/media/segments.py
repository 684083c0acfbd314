"""Frames in, fragmented MP4 out: H.264 in one-GOP segments, produced while the frames arrive.

Shape letters: F frames, Y/X pixel height/width, C = 3 (RGB).

One segment is one closed GOP, so `init + segment` plays alone and a concatenation needs no re-encoding. There are no
B-frames: decode order is display order, segment k starts exactly at its first frame's time, and no edit list or
composition offset has to be carried through a remux. Colours are those of `components.media.yuv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from components.errors import MediaError
from components.media.boxes import BoxSplitter, fragment_frames
from components.media.yuv import PIX_FMT, FrameSource, tag

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_MP4_OPTIONS = {
    # `frag_discont` and `make_non_negative` let the first fragment say its own time instead of zero.
    "movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer+frag_discont",
    "avoid_negative_ts": "make_non_negative",
    "flush_packets": "1",
    "fflags": "+bitexact",  # no library versions or dates in the file
}


@dataclass(frozen=True, slots=True)
class VideoQuality:
    """How much a frame may cost. Equal frames, quality and threads give equal bytes."""

    crf: int = 18  # constant rate factor: 1 (largest) … 51 (worst); 18 is visually lossless
    preset: str = "veryfast"
    threads: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.crf <= 51:
            raise ValueError(f"crf must be 1 … 51, not {self.crf}")
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {self.preset!r}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")


@dataclass(frozen=True, slots=True)
class Segment:
    """One closed GOP as `moof` + `mdat`; playable behind the encoder's `init`."""

    index: int  # of this encoder's, from 0
    first_frame: int  # of the whole video
    frames: int
    duration_s: float
    data: bytes


class SegmentEncoder:
    """Encodes one video, or one chunk of it. Memory: one GOP of packets and the encoder's lookahead, whatever the
    length.

    `init` (ftyp + moov) is there from the start. A segment comes out once the encoder has passed its last frame.

    Encoders of equal size, rate, GOP and quality have equal `init`s, and a later chunk's says where in the video it
    begins (`first_frame`, `first_segment`: how many came before), so their segments join into one timeline.
    """

    init: bytes

    def __init__(
        self,
        height: int,
        width: int,
        fps: int,
        *,
        gop_frames: int | None = None,  # None: one second
        quality: VideoQuality | None = None,
        first_frame: int = 0,
        first_segment: int = 0,
    ) -> None:
        """Raises ValueError for odd or non-positive sizes, fps or GOP, or a negative start; MediaError when the
        encoder refuses them.
        """
        self._source = FrameSource(height, width, fps, first_frame=first_frame)
        self._gop = fps if gop_frames is None else gop_frames
        if self._gop < 1 or first_segment < 0:
            raise ValueError(f"gop_frames ({self._gop}) must be at least 1, first_segment ({first_segment}) at least 0")
        quality = quality or VideoQuality()
        self._fps = fps
        self._frames_out = first_frame
        self._segments = 0
        self._moof: bytes | None = None
        self._open = True
        self._sink = BoxSplitter()
        options = {**_MP4_OPTIONS, "fragment_index": str(first_segment + 1)}
        try:
            self._container = av.open(self._sink, "w", format="mp4", options=options)
            self._stream = self._container.add_stream("libx264", rate=fps, options=self._codec_options(quality))
            self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, PIX_FMT
            codec = self._stream.codec_context
            codec.thread_count = quality.threads
            tag(codec)
            self._container.start_encoding()
        except FFmpegError as error:
            raise MediaError(f"The encoder does not accept {width}×{height} at {fps} fps: {error.strerror}.") from error
        self.init = b"".join(box for _, box in self._sink.take())

    def _codec_options(self, quality: VideoQuality) -> dict[str, str]:
        # No mbtree: x264's AVX-512 code for it now and then gives equal frames other bytes in a frame's last macroblock
        # (BENCHMARKS.md). It saves less than sizes at one CRF suggest: x264 then adds (1 - qcomp) * 13.5 = 5.4 to it.
        gop = f"keyint={self._gop}:min-keyint={self._gop}:scenecut=0:open-gop=0:bframes=0:mbtree=0:chromaloc=1"
        return {"crf": str(quality.crf), "preset": quality.preset, "x264-params": gop}

    def encode(self, frames_FYXC: NDArray[np.uint8]) -> Sequence[Segment]:
        """Takes a chunk of frames, uint8 [F, Y, X, 3] of any F; returns the segments that are complete now.

        Raises:
            ValueError: another dtype or shape, or the encoder is closed.
            MediaError: the encoder failed.
        """
        if not self._open:
            raise ValueError("the encoder is closed")
        for frame in self._source.frames(frames_FYXC):
            self._mux(frame)
        return self._completed()

    def finish(self) -> Sequence[Segment]:
        """Ends the video; returns the remaining segments. The encoder is closed afterwards. ValueError, MediaError."""
        if not self._open:
            raise ValueError("the encoder is closed")
        self._mux(None)
        self.close()
        segments = self._completed()
        if self._frames_out != self._source.count:
            raise MediaError(f"The encoder was given frames up to {self._source.count}, returned {self._frames_out}.")
        return segments

    def close(self) -> None:
        """Frees the encoder; frames that are still in it are lost. Twice is harmless. MediaError."""
        if self._open:
            self._open = False
            try:
                self._container.close()
            except FFmpegError as error:
                raise MediaError(f"The video could not be closed: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except FFmpegError as error:
            raise MediaError(f"The encoder failed at frame {self._source.count}: {error.strerror}.") from error

    def _completed(self) -> list[Segment]:
        segments = []
        for kind, box in self._sink.take():
            if kind == "moof":
                self._moof = box
            elif kind == "mdat" and self._moof is not None:
                frames = fragment_frames(self._moof)
                segments.append(Segment(self._segments, self._frames_out, frames, frames / self._fps, self._moof + box))
                self._segments += 1
                self._frames_out += frames
                self._moof = None
        return segments
