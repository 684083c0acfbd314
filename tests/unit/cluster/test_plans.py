from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidRequest
from cluster.plans import (
    BUCKETS,
    aspect_bucket,
    bucket,
    clip_frames,
    extension_frames,
    extension_rolls,
    floor16,
    latent_frames,
    shot_roll,
)

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


@pytest.mark.parametrize(
    ("seconds", "new"), [(5, [33]), (10, [33, 33]), (11, [33, 33, 1]), (30, [33, 33, 25, 33, 33, 25])]
)
def test_rolls_of_an_extension(seconds: int, new: list[int]) -> None:
    assert [roll.new_latents for roll in extension_rolls(seconds)] == new


@pytest.mark.parametrize("seconds", range(1, 31))
def test_an_extension_is_as_long_as_asked_for_and_at_most_a_roll_s_share_longer(seconds: int) -> None:
    rolls = extension_rolls(seconds)
    assert 24 * seconds <= extension_frames(seconds) < 24 * seconds + 4 * 8
    for roll in rolls:
        assert (roll.prefix_frames, roll.prefix_latents, roll.dropped_frames) == (25, 7, 25)
        assert roll.decoded_latents % 8 == 0
        assert latent_frames(roll.decoded_frames) == roll.decoded_latents
        assert roll.kept_frames == 4 * roll.new_latents


@pytest.mark.parametrize(("seconds", "source"), [(2, 9), (3, 17), (4, 25), (5, 33)])
def test_the_roll_of_a_shot_switch(seconds: int, source: int) -> None:
    roll = shot_roll(seconds)
    assert (roll.prefix_frames, roll.dropped_frames) == (source, 0)
    assert roll.kept_frames == roll.decoded_frames == 24 * seconds + 1
    assert (roll.prefix_latents + roll.new_latents) % 8 == 0


@pytest.mark.parametrize(
    ("plan", "seconds"), [(extension_rolls, 0), (extension_rolls, 31), (shot_roll, 1), (shot_roll, 6)]
)
def test_other_durations_are_refused(plan: Callable[[int], object], seconds: int) -> None:
    with pytest.raises(InvalidRequest, match=f"not {seconds}"):
        plan(seconds)
