"""A thumbnail and a spritesheet of a video, picked from its frames while they pass.

Memory: one small picture per cell of the sheet, whatever the length and size of the video.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL_SIDE = 640  # pixels of the longer side, at most
CELL_SIDE = 256
MAX_COLUMNS = 5  # and as many rows
_JPEG_QUALITY = 85
_WEBP_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Still:
    """One picture as a file."""

    data: bytes
    media_type: str
    width: int
    height: int


class Stills:
    """Picks from a video of `frames` frames: the middle one, and up to 25 that are spread evenly from first to last."""

    def __init__(self, frames: int) -> None:
        """ValueError for a video without frames."""
        if frames < 1:
            raise ValueError("a video has at least one frame")
        cells = min(frames, MAX_COLUMNS**2)
        last = frames - 1
        self._wanted = {0} if cells == 1 else {round(cell * last / (cells - 1)) for cell in range(cells)}
        self._middle = frames // 2
        self._seen = 0
        self._thumbnail: Image.Image | None = None
        self._cells: list[Image.Image] = []

    def add(self, frames_FYXC: NDArray[np.uint8]) -> None:
        """The next frames, uint8 [F, Y, X, 3]."""
        for index, frame_YXC in enumerate(frames_FYXC, self._seen):
            if index == self._middle:
                self._thumbnail = _fitted(frame_YXC, THUMBNAIL_SIDE)
            if index in self._wanted:
                self._cells.append(_fitted(frame_YXC, CELL_SIDE))
        self._seen += len(frames_FYXC)

    def thumbnail(self) -> Still:
        """The middle frame as WebP. ValueError before it has passed."""
        if self._thumbnail is None:
            raise ValueError(f"frame {self._middle} has not been seen yet")
        return _saved(self._thumbnail, "WEBP", quality=_WEBP_QUALITY, method=4)

    def spritesheet(self) -> Still:
        """The picked frames as a grid in one JPEG, row by row; unused cells are black. ValueError before the last."""
        if len(self._cells) < len(self._wanted):
            raise ValueError(f"the sheet has {len(self._cells)} of {len(self._wanted)} frames yet")
        columns = math.ceil(math.sqrt(len(self._cells)))
        width, height = self._cells[0].size
        sheet = Image.new("RGB", (width * columns, height * math.ceil(len(self._cells) / columns)))
        for index, cell in enumerate(self._cells):
            sheet.paste(cell, (index % columns * width, index // columns * height))
        return _saved(sheet, "JPEG", quality=_JPEG_QUALITY)


def _fitted(frame_YXC: NDArray[np.uint8], side: int) -> Image.Image:
    """The frame with its longer side at most `side` pixels; a copy, as the frame's memory is used again."""
    image = Image.fromarray(frame_YXC)
    factor = min(1.0, side / max(image.size))
    width, height = (max(1, round(length * factor)) for length in image.size)
    return image.copy() if factor == 1.0 else image.resize((width, height), Image.Resampling.LANCZOS)


def _saved(image: Image.Image, kind: str, **options: int) -> Still:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return Still(data.getvalue(), f"image/{kind.lower()}", *image.size)
