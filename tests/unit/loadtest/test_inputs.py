"""Media that requests carry: readable, of the length that was asked for, the same every time."""

from __future__ import annotations

import io
import wave

import av
from PIL import Image

from loadtest.inputs import CLIP_FPS, CLIP_S, SIDES, clip, data_uri, png, voice


def test_a_picture_has_its_colour() -> None:
    image = Image.open(io.BytesIO(png(200, 30, 10)))
    assert (image.size, image.getpixel((5, 5))) == ((48, 32), (200, 30, 10))


def test_a_voice_has_its_length() -> None:
    with wave.open(io.BytesIO(voice(1.5))) as file:
        assert file.getnframes() / file.getframerate() == 1.5
        assert any(file.readframes(1000))


def test_a_clip_has_its_frames() -> None:
    with av.open(io.BytesIO(clip())) as file:
        frames = [(frame.width, frame.height) for frame in file.decode(video=0)]
    assert frames == [SIDES] * round(CLIP_S * CLIP_FPS)


def test_bytes_travel_as_a_uri() -> None:
    assert data_uri("image/png", b"\0") == "data:image/png;base64,AA=="
