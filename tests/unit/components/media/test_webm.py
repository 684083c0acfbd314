"""WebM files: every frame in order, the right look, the same bytes again."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from components.media.webm import WebmEncoder
from tests.unit.components.media.conftest import moving_picture


def write(path: Path, clip: NDArray[np.uint8], *, crf: int = 22, piece: int = 4) -> bytes:
    _, height, width, _ = clip.shape
    with WebmEncoder(path, height, width, 24, crf=crf) as encoder:
        for start in range(0, len(clip), piece):
            encoder.add(clip[start : start + piece])
        assert encoder.finish() == len(clip)
    return path.read_bytes()


def test_the_pictures_arrive(tmp_path: Path) -> None:
    clip = moving_picture(49)
    write(tmp_path / "a.webm", clip)
    with av.open(str(tmp_path / "a.webm")) as video:
        assert "webm" in video.format.name
        stream = video.streams.video[0]
        assert (stream.codec_context.name.removeprefix("lib"), stream.average_rate) in {("vp9", 24), ("vpx-vp9", 24)}
        frames = list(video.decode(stream))
        assert abs(float(video.duration) / 1e6 - 49 / 24) < 0.05
    assert [round(frame.time * 24) for frame in frames] == list(range(49))
    shown = np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).astype(float)
    assert np.abs(shown - clip).mean() < 4
    assert np.abs(shown.mean(axis=(1, 2)) - clip.mean(axis=(1, 2))).max() < 3  # no colour cast


def test_equal_frames_give_equal_bytes_and_quality_costs(tmp_path: Path) -> None:
    clip = moving_picture(25)
    first = write(tmp_path / "a.webm", clip)
    assert first == write(tmp_path / "b.webm", clip, piece=9)
    assert len(write(tmp_path / "c.webm", clip, crf=49)) < len(first) < len(write(tmp_path / "d.webm", clip, crf=12))
    assert not re.search(rb"Lavf\d|Lavc\d", first)


def test_players_find_the_index_before_the_pictures(tmp_path: Path) -> None:
    data = write(tmp_path / "a.webm", moving_picture(30))
    cues, cluster = bytes.fromhex("1c53bb6b"), bytes.fromhex("1f43b675")
    assert 0 < data.rindex(cues, 0, data.index(cluster) + 4) < data.index(cluster)


@contextmanager
def disk(nbytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_os_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 128, 128, 3), dtype=np.uint8)
    with disk(50_000), pytest.raises(OSError, match="File too large"):
        write(tmp_path / "a.webm", noise)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        WebmEncoder(tmp_path / "a.webm", 63, 96, 24, crf=22)
    with pytest.raises(OSError):
        WebmEncoder(tmp_path / "nowhere" / "a.webm", 64, 96, 24, crf=22)
    encoder = WebmEncoder(tmp_path / "a.webm", 64, 96, 24, crf=22)
    with pytest.raises(ValueError, match="uint8"):
        encoder.add(np.zeros((1, 64, 64, 3), np.uint8))
    encoder.close()
    encoder.close()
    with pytest.raises(ValueError, match="closed"):
        encoder.add(np.zeros((1, 64, 96, 3), np.uint8))
    with pytest.raises(ValueError, match="closed"):
        encoder.finish()
