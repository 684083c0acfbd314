import io
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from components.media.mix import Heard
from components.media.mux import remux
from components.media.segments import SegmentEncoder
from components.media.soundtrack import Sound
from tests.unit.components.media.sounds import encode, tone


def moving_picture(frames: int, height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """uint8 [F, Y, X, 3]: smooth gradients that drift, every frame another."""
    f, y, x = np.mgrid[:frames, :height, :width].astype(np.float64)
    red = 128 + 100 * np.sin(x / 15 + f / 5)
    green = 128 + 100 * np.sin(y / 11 - f / 7)
    blue = 128 + 100 * np.sin((x + y) / 23 + f / 9)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


@pytest.fixture
def clip() -> NDArray[np.uint8]:
    """Five seconds and one frame at 24 fps."""
    return moving_picture(121)


FPS = 25


def segments_of(frames: int) -> list[bytes]:
    """Init segment and media segments of a short video."""
    encoder = SegmentEncoder(64, 96, FPS)
    media = [*encoder.encode(moving_picture(frames)), *encoder.finish()]
    return [encoder.init, *(segment.data for segment in media)]


@pytest.fixture(scope="session")
def silent_video() -> bytes:
    return b"".join(segments_of(12))


@pytest.fixture(scope="session")
def video_with_sound(tmp_path_factory) -> bytes:
    out = tmp_path_factory.mktemp("film") / "film.mp4"
    remux(segments_of(FPS), out, sound=Sound([Heard(io.BytesIO(encode(tone(1))), Fraction(1))], FPS))
    return out.read_bytes()
