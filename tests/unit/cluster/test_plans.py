from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidRequest
from cluster.plans import BUCKETS, aspect_bucket, bucket, clip_frames, floor16, latent_frames

FAMILIES = st.sampled_from(sorted(BUCKETS))
SIDES = st.integers(1, 10_000)


@given(FAMILIES, SIDES, SIDES)
def test_a_bucket_is_the_nearest_key_floored_to_whole_tokens(family: str, height: int, width: int) -> None:
    out = bucket(family, height, width)
    assert all(side % 16 == 0 and side > 0 for side in out)
    table = BUCKETS[family]
    nearest = min(abs(key - height / width) for key in table)
    assert out in {
        (floor16(tall), floor16(wide)) for key, (tall, wide) in table.items() if abs(key - height / width) == nearest
    }


@pytest.mark.parametrize(
    ("family", "aspect", "size"),
    [
        ("720P", "16:9", (720, 1280)),
        ("720P", "9:16", (1280, 720)),
        ("720P", "1:1", (960, 960)),
        ("540P", "16:9", (544, 960)),
        ("480P", "16:9", (480, 848)),
        ("64P", "16:9", (64, 112)),
        ("64P", "9:16", (112, 64)),
        ("64P", "1:1", (80, 80)),
    ],
)
def test_sizes_of_the_offered_aspects(family: str, aspect: str, size: tuple[int, int]) -> None:
    assert aspect_bucket(family, aspect) == size


@given(FAMILIES, st.integers(1, 100), st.integers(1, 100))
def test_an_aspect_is_width_by_height(family: str, width: int, height: int) -> None:
    assert aspect_bucket(family, f"{width}:{height}") == bucket(family, height, width)


@pytest.mark.parametrize("aspect", ["", "16", "16:9:1", "a:b", "0:1", "16:-9", "16/9"])
def test_a_malformed_aspect_is_named(aspect: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        aspect_bucket("720P", aspect)
    assert caught.value.param == "aspect_ratio"


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(InvalidRequest, match="4K") as caught:
        bucket("4K", 1, 1)
    assert caught.value.param == "resolution"


@given(st.integers(1, 60), st.sampled_from([16, 24, 25, 30]))
def test_latent_frames_are_exact_or_refused(duration_s: int, fps: int) -> None:
    frames = clip_frames(duration_s, fps)
    assert frames == duration_s * fps + 1
    if (frames - 1) % 4:
        with pytest.raises(ValueError, match=str(frames)):
            latent_frames(frames)
    else:
        assert 4 * (latent_frames(frames) - 1) + 1 == frames


@pytest.mark.parametrize("frames", [0, -3, 2, 4])
def test_other_frame_counts_are_refused(frames: int) -> None:
    with pytest.raises(ValueError, match="4k"):
        latent_frames(frames)
