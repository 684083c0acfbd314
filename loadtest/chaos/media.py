"""What a result's bytes are: decoded to the last frame."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import av


@dataclass(frozen=True, slots=True)
class Film:
    """A result as it was downloaded. `flaw` = why it cannot be decoded."""

    sha256: str
    nbytes: int
    frames: int
    size: str  # "WIDTHxHEIGHT"
    flaw: str | None = None
    pixels_sha256: str = ""  # of the decoded frames: tells whether files differ in what is seen
    seed: int = 0  # as the server reports it


def inspect(data: bytes) -> Film:
    """Decodes every frame."""
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.video[0]
            frames, pixels = 0, hashlib.sha256()
            for frame in container.decode(stream):
                frames += 1
                pixels.update(frame.to_ndarray(format="rgb24").tobytes())
            size = f"{stream.codec_context.width}x{stream.codec_context.height}"
    except (av.FFmpegError, IndexError) as error:
        return Film(sha256, len(data), 0, "", f"{type(error).__name__}: {error}")
    return Film(sha256, len(data), frames, size, pixels_sha256=pixels.hexdigest())
