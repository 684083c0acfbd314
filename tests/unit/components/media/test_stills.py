"""Pictures of a video, picked while its frames pass."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from components.media.stills import Stills


def film(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Every frame one grey, brighter from frame to frame."""
    greys = np.linspace(0, 255, frames).round().astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (frames, height, width, 3)).copy()


def made(clip: NDArray[np.uint8], piece: int) -> Stills:
    stills = Stills(len(clip))
    for start in range(0, len(clip), piece):
        stills.add(clip[start : start + piece])
    return stills


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("piece", [1, 4, 1000])
def test_the_thumbnail_is_the_middle_frame_made_small(piece: int) -> None:
    clip = film(121, 360, 1280)
    still = made(clip, piece).thumbnail()
    image = opened(still.data)
    assert (image.format, still.media_type) == ("WEBP", "image/webp")
    assert image.size == (still.width, still.height) == (640, 180)
    assert abs(np.asarray(image.convert("RGB")).mean() - clip[60].mean()) < 2


@pytest.mark.parametrize(
    ("frames", "grid"), [(1, (1, 1)), (2, (2, 1)), (3, (2, 2)), (9, (3, 3)), (25, (5, 5)), (26, (5, 5)), (241, (5, 5))]
)
def test_the_sheet_goes_evenly_from_the_first_frame_to_the_last(frames: int, grid: tuple[int, int]) -> None:
    clip = film(frames, 64, 112)
    still = made(clip, 4).spritesheet()
    image = opened(still.data)
    assert (image.format, still.media_type) == ("JPEG", "image/jpeg")
    assert image.size == (still.width, still.height) == (112 * grid[0], 64 * grid[1])
    shown = min(frames, 25)
    cells = [
        np.asarray(image)[y * 64 + 8 : y * 64 + 56, x * 112 + 8 : x * 112 + 104].mean()
        for y in range(grid[1])
        for x in range(grid[0])
    ]
    even = [round(cell * (frames - 1) / max(shown - 1, 1)) for cell in range(shown)]
    assert np.allclose(cells[:shown], [clip[index].mean() for index in even], atol=2)
    assert np.allclose(cells[shown:], 0, atol=2)


def test_small_frames_are_not_enlarged_and_large_ones_are_bounded() -> None:
    small, large = made(film(3, 20, 30), 3), made(film(30, 1080, 1920), 8)
    assert (small.thumbnail().width, small.thumbnail().height) == (30, 20)
    assert (large.spritesheet().width, large.spritesheet().height) == (5 * 256, 5 * 144)


def test_the_callers_memory_may_be_used_again() -> None:
    clip = film(3, 16, 16)
    stills = Stills(3)
    for frame in clip:
        buffer = frame[None].copy()
        stills.add(buffer)
        buffer[:] = 99
    assert abs(np.asarray(opened(stills.thumbnail().data).convert("RGB")).mean() - clip[1].mean()) < 2


def test_equal_frames_give_equal_files() -> None:
    clip = film(30, 64, 112)
    one, other = made(clip, 4), made(clip, 7)
    assert one.thumbnail() == other.thumbnail()
    assert one.spritesheet() == other.spritesheet()


def test_a_sheet_of_a_video_that_is_not_complete_is_refused() -> None:
    stills = Stills(10)
    stills.add(film(10, 16, 16)[:5])
    for wanted in (Stills(10).thumbnail, stills.spritesheet):
        with pytest.raises(ValueError, match="yet"):
            wanted()
    with pytest.raises(ValueError, match="at least one frame"):
        Stills(0)
