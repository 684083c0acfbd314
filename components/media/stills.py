"""A thumbnail and a spritesheet of a video, picked from its frames while they pass.

Memory: one small picture per cell of the sheet, whatever the length and size of the video.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
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
    """Picks from a video of `frames` frames: the middle one, and up to 25 that are spread evenly from first to last.

    A video may come in parts, each with a `Stills` of its own that is told where the part begins.
    """

    def __init__(self, frames: int, first_frame: int = 0) -> None:
        """ValueError for a video without frames, or a part that begins outside of it."""
        if not 0 <= first_frame < frames:
            raise ValueError(f"a video has at least one frame; a part of {frames} cannot begin at {first_frame}")
        cells = min(frames, MAX_COLUMNS**2)
        last = frames - 1
        self._wanted = {0} if cells == 1 else {round(cell * last / (cells - 1)) for cell in range(cells)}
        self._middle = frames // 2
        self._seen = first_frame
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

    @property
    def picked(self) -> int:
        """How many frames the strip holds."""
        return len(self._cells)

    def thumbnail(self) -> Still | None:
        """The middle frame as WebP; None while it has not passed."""
        return None if self._thumbnail is None else _saved(self._thumbnail, "WEBP", quality=_WEBP_QUALITY, method=4)

    def strip(self) -> Still | None:
        """The frames picked so far, one below the other and without loss; None when there are none."""
        if not self._cells:
            return None
        width, height = self._cells[0].size
        column = Image.new("RGB", (width, height * len(self._cells)))
        for index, cell in enumerate(self._cells):
            column.paste(cell, (0, index * height))
        return _saved(column, "PNG", compress_level=1)


def spritesheet(strips: Iterable[tuple[bytes, int]], frames: int) -> Still:
    """All picked frames as a grid in one JPEG, row by row; unused cells are black.

    Args:
        strips: those of a video's parts in order, and how many frames each holds.
        frames: of the video.

    Raises:
        ValueError: a part is missing.
    """
    cells: list[Image.Image] = []
    for data, count in strips:
        column = Image.open(io.BytesIO(data), formats=("PNG",))
        height = column.height // count
        cells += [column.crop((0, index * height, column.width, (index + 1) * height)) for index in range(count)]
    if len(cells) != (wanted := min(frames, MAX_COLUMNS**2)):
        raise ValueError(f"the sheet has {len(cells)} of {wanted} frames yet")
    columns = math.ceil(math.sqrt(len(cells)))
    width, height = cells[0].size
    sheet = Image.new("RGB", (width * columns, height * math.ceil(len(cells) / columns)))
    for index, cell in enumerate(cells):
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
