"""Pictures of a video, picked while its frames pass."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from components.media.stills import Still, Stills, spritesheet


def film(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Every frame one grey, brighter from frame to frame."""
    greys = np.linspace(0, 255, frames).round().astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (frames, height, width, 3)).copy()


def made(clip: NDArray[np.uint8], piece: int) -> Stills:
    stills = Stills(len(clip))
    for start in range(0, len(clip), piece):
        stills.add(clip[start : start + piece])
    return stills


def sheet(*parts: Stills, frames: int) -> Still:
    strips = [(part.strip(), part.picked) for part in parts]
    return spritesheet([(strip.data, picked) for strip, picked in strips if strip is not None], frames)


def thumbnail(stills: Stills) -> Still:
    still = stills.thumbnail()
    assert still is not None
    return still


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("piece", [1, 4, 1000])
def test_the_thumbnail_is_the_middle_frame_made_small(piece: int) -> None:
    clip = film(121, 360, 1280)
    still = thumbnail(made(clip, piece))
    image = opened(still.data)
    assert (image.format, still.media_type) == ("WEBP", "image/webp")
    assert image.size == (still.width, still.height) == (640, 180)
    assert abs(np.asarray(image.convert("RGB")).mean() - clip[60].mean()) < 2


@pytest.mark.parametrize(
    ("frames", "grid"), [(1, (1, 1)), (2, (2, 1)), (3, (2, 2)), (9, (3, 3)), (25, (5, 5)), (26, (5, 5)), (241, (5, 5))]
)
def test_the_sheet_goes_evenly_from_the_first_frame_to_the_last(frames: int, grid: tuple[int, int]) -> None:
    clip = film(frames, 64, 112)
    still = sheet(made(clip, 4), frames=frames)
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
    assert (thumbnail(small).width, thumbnail(small).height) == (30, 20)
    shown = sheet(large, frames=30)
    assert (shown.width, shown.height) == (5 * 256, 5 * 144)


def test_the_callers_memory_may_be_used_again() -> None:
    clip = film(3, 16, 16)
    stills = Stills(3)
    for frame in clip:
        buffer = frame[None].copy()
        stills.add(buffer)
        buffer[:] = 99
    assert abs(np.asarray(opened(thumbnail(stills).data).convert("RGB")).mean() - clip[1].mean()) < 2


def test_equal_frames_give_equal_files() -> None:
    clip = film(30, 64, 112)
    one, other = made(clip, 4), made(clip, 7)
    assert one.thumbnail() == other.thumbnail()
    assert sheet(one, frames=30) == sheet(other, frames=30)


def test_a_video_in_parts_has_the_pictures_of_the_whole() -> None:
    clip = film(61, 64, 112)
    whole, parts = made(clip, 4), []
    for first, end in ((0, 24), (24, 29), (29, 61)):
        part = Stills(61, first)
        part.add(clip[first:end])
        parts.append(part)
    assert sheet(*parts, frames=61) == sheet(whole, frames=61)
    assert [part.thumbnail() for part in parts] == [None, None, whole.thumbnail()]


def test_a_sheet_of_a_video_that_is_not_complete_is_refused() -> None:
    stills = Stills(10)
    assert stills.thumbnail() is stills.strip() is None
    stills.add(film(10, 16, 16)[:5])
    with pytest.raises(ValueError, match="yet"):
        sheet(stills, frames=10)
    for frames, first in ((0, 0), (5, 5), (5, -1)):
        with pytest.raises(ValueError, match="at least one frame"):
            Stills(frames, first)
