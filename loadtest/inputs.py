"""Small media for requests, made here: pictures, a voice, a clip. The same arguments give the same bytes."""

from __future__ import annotations

import base64
import io
import math
import struct
import wave
import zlib
from functools import lru_cache

import av
import numpy as np

VOICE_HZ = 16_000
CLIP_FPS = 24
CLIP_S = 1.5  # longer than the frames that any extension begins with
SIDES = (112, 64)  # of the clip's pictures, width and height
COLOURS = ((200, 30, 30), (30, 30, 200), (30, 160, 60), (180, 160, 30))


def picture(red: int, green: int, blue: int) -> str:
    """A data URI of a plain PNG of 48 × 32 pixels."""
    return data_uri("image/png", png(red, green, blue))


@lru_cache
def png(red: int, green: int, blue: int) -> bytes:
    """A plain picture of 48 × 32 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + bytes((red, green, blue)) * 48) * 32
    header = struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@lru_cache
def voice(seconds: float) -> bytes:
    """A WAV of a hum that comes and goes three times a second, mono."""
    at_s = np.arange(round(seconds * VOICE_HZ)) / VOICE_HZ
    hum = np.sin(2 * math.pi * 180 * at_s) * (0.55 + 0.45 * np.sin(2 * math.pi * 3 * at_s))
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(VOICE_HZ)
        file.writeframes((hum * 12_000).astype("<i2").tobytes())
    return held.getvalue()


@lru_cache
def clip() -> bytes:
    """An MP4 of a bar that moves over a gradient, 1.5 s."""
    width, height = SIDES
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=CLIP_FPS, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(CLIP_S * CLIP_FPS)):
            pixels = np.repeat(np.linspace(40, 200, width, dtype=np.uint8)[None, :, None], height, 0).repeat(3, 2)
            pixels[:, (3 * index) % width] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return held.getvalue()


def data_uri(media_type: str, data: bytes) -> str:
    """The bytes as a URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
