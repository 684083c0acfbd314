from itertools import pairwise

import pytest

from cluster.windows import (
    DROPPED_FRAMES,
    MAX_FRAMES,
    MIN_FRAMES,
    MOTION_FRAMES,
    STRIDE_FRAMES,
    WINDOW_FRAMES,
    sound_index,
    windows,
)


@pytest.mark.parametrize("frames", [MIN_FRAMES, 80, 81, 82, 145, 146, 209, 1000, 4937, 4999, MAX_FRAMES])
def test_passes_cover_every_frame_of_sound_once(frames):
    passes = windows(frames)
    film = [window.start + at for window in passes for at in range(window.keep_from, window.keep_to)]
    assert film == list(range(frames))
    assert [window.index for window in passes] == list(range(len(passes)))
    assert all(0 <= window.keep_from <= window.keep_to <= WINDOW_FRAMES for window in passes)


@pytest.mark.parametrize("frames", [82, 146, 600, MAX_FRAMES])
def test_each_window_begins_with_the_last_frames_kept_before(frames):
    _, *chain = windows(frames)
    assert chain[0].motion == 0
    assert not chain[-1].hands_on
    for before, after in pairwise(chain):
        assert before.hands_on
        assert before.keep_to == WINDOW_FRAMES - DROPPED_FRAMES
        assert before.start + before.hand_from == after.start
        assert before.hand_from + MOTION_FRAMES == before.keep_to
        assert after.motion == MOTION_FRAMES


def test_key_frames_rise_to_the_last_of_pass_0():
    for frames in (81, 100, 700, MAX_FRAMES):
        first, *chain = windows(frames)
        keys = [window.key_frame for window in chain]
        assert first.key_frame is None
        assert keys == sorted(keys)
        assert keys[-1] == WINDOW_FRAMES - 1


def test_a_short_sound_is_one_pass_that_keeps_all():
    (only,) = windows(40)
    assert (only.kept, only.hands_on, only.key_frame) == (40, False, None)
    assert sound_index(only, 40)[39:42] == ((37, 38, 39, 39, 39), (38, 39, 39, 39, 39), (39,) * 5)


def test_sound_is_mirrored_beyond_its_end_and_clamped_at_the_mirror_s():
    last = windows(100)[-1]
    index = sound_index(last, 100)
    assert last.start == STRIDE_FRAMES
    assert index[0] == (62, 63, 64, 65, 66)
    assert index[35] == (97, 98, 99, 99, 98)  # frame 99, the last of the sound
    assert index[36] == (98, 99, 99, 98, 97)
    assert index[80] == (57, 56, 55, 55, 55)  # frame 144 mirrors 55, and nothing lies beyond
    assert sound_index(windows(100)[0], 100)[0] == (0, 0, 0, 1, 2)


@pytest.mark.parametrize("frames", [0, MIN_FRAMES - 1, MAX_FRAMES + 1])
def test_other_lengths_are_refused(frames):
    with pytest.raises(ValueError, match="10 to 5000"):
        windows(frames)
