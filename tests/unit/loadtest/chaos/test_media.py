"""A result is decoded to its last frame, or its flaw is told."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from loadtest.chaos.media import inspect
from loadtest.inputs import picture


@pytest.fixture(scope="module")
def film() -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(9):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level * 20, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return sink.getvalue()


def test_every_frame_is_decoded(film: bytes) -> None:
    seen = inspect(film)
    assert (seen.frames, seen.size, seen.nbytes, seen.flaw) == (9, "64x48", len(film), None)


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_torn_file_has_a_flaw(film: bytes, keep: float) -> None:
    assert inspect(film[: int(keep * len(film))]).flaw is not None


def test_the_pictures_of_the_jobs_can_be_read() -> None:
    with av.open(picture(1, 2, 3)) as container:
        (frame,) = container.decode(video=0)
    assert (frame.width, frame.height) == (48, 32)
    assert frame.to_ndarray(format="rgb24")[5, 5].tolist() == [1, 2, 3]
