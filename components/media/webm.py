"""Frames in, one WebM file out: VP9, written while the frames arrive.

VP9 because every browser plays it and libvpx codes it at several times the speed of a VAE; AV1 files are smaller, but
SVT-AV1 takes threads and hundreds of megabytes of its own.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from components.errors import MediaError
from components.media.yuv import PIX_FMT, FrameSource, tag

# Players may seek before the whole file is there; no library versions, dates or random ids in the file.
_WEBM_OPTIONS = {"cues_to_front": "1", "fflags": "+bitexact"}


class WebmEncoder:
    """Encodes one video into a file. Memory: the encoder's lookahead, whatever the length. Equal frames and rate factor
    give equal bytes.
    """

    def __init__(
        self, path: str | os.PathLike[str], height: int, width: int, fps: int, *, crf: int, first_frame: int = 0
    ) -> None:
        """`crf`: 0 (largest) … 63 (worst); `first_frame`: where a part of a video begins in it. ValueError for sizes
        and rates as `FrameSource`; MediaError when the encoder refuses them; OSError when the file cannot be written.
        """
        self._source = FrameSource(height, width, fps, first_frame=first_frame)
        self._open = True
        # b=0 makes crf the only rule; a key frame each second, as in the segments.
        options = {"crf": str(crf), "b": "0", "deadline": "good", "cpu-used": "5", "g": str(fps)}
        try:
            self._container = av.open(os.fspath(path), "w", format="webm", options=_WEBM_OPTIONS)
            self._stream = self._container.add_stream("libvpx-vp9", rate=fps, options=options)
            self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, PIX_FMT
            self._stream.codec_context.thread_count = 1
            tag(self._stream.codec_context)
            self._container.start_encoding()
        except FFmpegError as error:
            raise _told(error, f"The encoder does not accept {width}×{height} at {fps} fps") from error

    def add(self, frames_FYXC: NDArray[np.uint8]) -> None:
        """Takes frames, uint8 [F, Y, X, 3] of any F. ValueError (dtype, shape, closed), MediaError, OSError."""
        if not self._open:
            raise ValueError("the encoder is closed")
        for frame in self._source.frames(frames_FYXC):
            self._mux(frame)

    def finish(self) -> int:
        """Ends the file; returns the number of the frame behind it. ValueError when closed; MediaError, OSError."""
        if not self._open:
            raise ValueError("the encoder is closed")
        self._mux(None)
        self.close()
        return self._source.count

    def close(self) -> None:
        """Frees the encoder; a file that is not finished is worth nothing. Twice is harmless. MediaError, OSError."""
        if self._open:
            self._open = False
            try:
                self._container.close()
            except FFmpegError as error:
                raise _told(error, "The video could not be closed") from error

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
            raise _told(error, f"The encoder failed at frame {self._source.count}") from error


def _told(error: FFmpegError, what: str) -> Exception:
    """A full disk stays an OSError; everything else is the encoder's."""
    return error if isinstance(error, OSError) else MediaError(f"{what}: {error.strerror}.")
