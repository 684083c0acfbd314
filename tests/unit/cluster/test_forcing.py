import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidRequest
from cluster.forcing import BLOCKS, CHUNK_FRAMES, OVERLAP_LATENTS, ForcingChunk, forcing_chunks, iterations
from cluster.plans import latent_frames
from components.forcing import schedule

FAMILIES = st.sampled_from(sorted(CHUNK_FRAMES))


def frames(chunks):
    return sum(chunk.kept_frames for chunk in chunks)


@pytest.mark.parametrize(
    ("duration_s", "expected", "count"), [(10, 257, 3), (15, 377, 5), (30, 737, 9), (60, 1457, 18)]
)
def test_the_released_lengths(duration_s, expected, count):
    chunks = forcing_chunks("540P", duration_s)
    assert (frames(chunks), len(chunks)) == (expected, count)


def test_short_videos_are_one_clip():
    assert forcing_chunks("540P", 4) == (ForcingChunk(25, 0, 0),)
    assert forcing_chunks("720P", 5, image=True) == (ForcingChunk(31, 1, 0),)
    assert frames(forcing_chunks("720P", 5)) == 121


@given(FAMILIES, st.integers(1, 60), st.sampled_from(BLOCKS), st.sampled_from(["image", "video", "nothing"]))
def test_chunks_fill_the_video_whole_block_by_whole_block(family, duration_s, block, begins):
    chunks = forcing_chunks(family, duration_s, block=block, image=begins == "image", video=begins == "video")
    longest = latent_frames(CHUNK_FRAMES[family])
    assert all(chunk.latents - chunk.known > 0 and chunk.latents <= longest for chunk in chunks)
    assert all(chunk.latents % block == 0 for chunk in chunks)
    assert all(chunk.known == OVERLAP_LATENTS and chunk.dropped_frames == 17 for chunk in chunks[1:])
    wanted = 24 * duration_s
    assert wanted <= frames(chunks) <= wanted + 17 + 4 * (block - 1)
    if begins == "video" and block == 1:
        assert frames(chunks) == wanted


@given(st.integers(1, 12), st.integers(0, 10), st.sampled_from(BLOCKS), st.integers(1, 5), st.booleans())
def test_iterations_are_those_of_the_schedule(steps, lag, block, blocks, known):
    chunk = ForcingChunk(block * blocks + (OVERLAP_LATENTS if known else 0), OVERLAP_LATENTS if known else 0, 0)
    plan = schedule(range(steps, 0, -1), chunk.latents, lag=lag, block=block, ready=chunk.known)
    assert iterations(chunk, steps, lag=lag, block=block) == len(plan)


def test_an_end_image_is_counted_in():
    chunk = ForcingChunk(7, 1, 0)
    plan = schedule(range(4, 0, -1), 8, lag=3, ready=1, held=1)
    assert iterations(chunk, 4, lag=3, held=1) == len(plan)


def test_what_cannot_be_is_refused():
    with pytest.raises(InvalidRequest, match="1 or 5; got 3"):
        forcing_chunks("540P", 4, block=3)
    with pytest.raises(InvalidRequest, match="at least 1 s"):
        forcing_chunks("540P", 0)
