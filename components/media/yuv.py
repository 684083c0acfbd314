"""RGB frames as encoders want them: 4:2:0, BT.709 in limited range, converted with that matrix and tagged with it.

swscale's default for RGB input would be BT.601. Chroma lies in the middle of its four pixels, where swscale averages
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray

PIX_FMT = "yuv420p"
# Chroma from every source column, rounded rather than truncated: no colour cast.
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP


def tag(codec: VideoCodecContext) -> None:
    """Writes into a codec what the frames' numbers mean."""
    codec.color_range = ColorRange.MPEG
    codec.color_primaries = ColorPrimaries.BT709
    codec.color_trc = ColorTrc.BT709
    codec.colorspace = Colorspace.ITU709


class FrameSource:
    """Counts and converts the frames of one video; `count` is the number of the next one."""

    def __init__(self, height: int, width: int, fps: int, *, first_frame: int = 0) -> None:
        """ValueError for odd or non-positive sizes, a rate below 1 or a negative start."""
        if height < 2 or width < 2 or height % 2 or width % 2:
            raise ValueError(f"frames are {height}×{width} pixels (height × width); both sides must be even")
        if fps < 1 or first_frame < 0:
            raise ValueError(f"fps ({fps}) must be at least 1, first_frame ({first_frame}) at least 0")
        self.count = first_frame
        self._shape = (height, width, 3)
        self._fps = fps
        self._reformatter = VideoReformatter()

    def frames(self, frames_FYXC: NDArray[np.uint8]) -> Iterator[av.VideoFrame]:
        """The frames with their times, for an encoder. ValueError: another dtype or shape."""
        if frames_FYXC.dtype != np.uint8 or frames_FYXC.shape[1:] != self._shape:
            raise ValueError(
                f"frames must be uint8 [F, {self._shape[0]}, {self._shape[1]}, 3], "
                f"not {frames_FYXC.dtype} {list(frames_FYXC.shape)}"
            )
        return map(self._convert, frames_FYXC)

    def _convert(self, frame_YXC: NDArray[np.uint8]) -> av.VideoFrame:
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_YXC), format="rgb24"),
            format=PIX_FMT,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_SCALING,
        )
        frame.pts = self.count
        frame.time_base = Fraction(1, self._fps)
        self.count += 1
        return frame
