import io
import itertools

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from components.errors import MediaError
from components.media.boxes import children
from components.media.mux import probe_video
from components.media.segments import SegmentEncoder, VideoQuality
from tests.unit.components.media.conftest import moving_picture


def encode(frames, chunk=None, **options):
    """(init, segments) of frames that arrive in chunks of the given size."""
    _, height, width, _ = frames.shape
    segments = []
    with SegmentEncoder(height, width, 24, **options) as encoder:
        for start in range(0, len(frames), chunk or len(frames)):
            segments += encoder.encode(frames[start : start + (chunk or len(frames))])
        segments += encoder.finish()
    return encoder.init, segments


def decode(data):
    """Every frame as uint8 [F, Y, X, 3], converted by the file's own colour tags, rounded."""
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    with av.open(io.BytesIO(data), "r", format="mp4") as video:
        return np.stack([frame.to_ndarray(format="rgb24", interpolation=exact) for frame in video.decode(video=0)])


def start_ticks(segment):
    """`baseMediaDecodeTime` of the segment's fragment."""
    return int.from_bytes(box(segment.data, "moof", "traf", "tfdt")[4:], "big")


def fragment_number(segment):
    """`sequence_number` of the segment's fragment."""
    return int.from_bytes(box(segment.data, "moof", "mfhd")[4:], "big")


def box(data, *path):
    """The payload of the first box on a path of names."""
    for name in path:
        data = next(payload for kind, payload in children(data) if kind == name)
    return bytes(data)


@pytest.mark.parametrize("chunk", [1, 5, 24, 121])
def test_one_gop_per_segment_whatever_the_chunks(clip, chunk):
    init, segments = encode(clip, chunk)
    assert [s.frames for s in segments] == [24, 24, 24, 24, 24, 1]
    assert [s.index for s in segments] == [0, 1, 2, 3, 4, 5]
    assert [s.first_frame for s in segments] == [0, 24, 48, 72, 96, 120]
    assert [s.duration_s for s in segments] == [1.0, 1.0, 1.0, 1.0, 1.0, 1 / 24]
    assert [kind for kind, _ in children(init)] == ["ftyp", "moov"]
    assert all([kind for kind, _ in children(s.data)] == ["moof", "mdat"] for s in segments)
    assert len({start_ticks(s) - s.first_frame * start_ticks(segments[1]) // 24 for s in segments}) == 1


def test_a_later_chunk_says_when_it_begins(clip):
    init, segments = encode(clip)
    later_init, later = encode(clip[:50], first_frame=121, first_segment=6)
    assert later_init == init
    assert [(s.index, s.first_frame, s.frames) for s in later] == [(0, 121, 24), (1, 145, 24), (2, 169, 2)]
    ticks = start_ticks(segments[1]) // 24
    assert [start_ticks(s) for s in later] == [ticks * s.first_frame for s in later]
    assert [fragment_number(s) for s in segments + later] == list(range(1, 10))


def test_bytes_depend_on_nothing_but_the_frames(clip):
    init, segments = encode(clip, 121)
    again = encode(clip, 7)
    assert (init, segments) == again


def test_equal_frames_have_equal_bytes_every_time():
    """At a width that is no multiple of eight macroblocks, where one encode of twenty once differed."""
    frames = moving_picture(25, 64, 112)
    first, *others = (encode(frames, 4) for _ in range(120))
    assert all(other == first for other in others)


def test_every_segment_plays_alone_and_together_they_are_the_video(clip):
    init, segments = encode(clip)
    alone = [decode(init + s.data) for s in segments]
    assert [len(frames) for frames in alone] == [s.frames for s in segments]
    np.testing.assert_array_equal(np.concatenate(alone), decode(init + b"".join(s.data for s in segments)))


def test_each_segment_begins_with_its_only_keyframe(clip):
    init, segments = encode(clip)
    with av.open(io.BytesIO(init + b"".join(s.data for s in segments)), "r", format="mp4") as video:
        packets = [packet for packet in video.demux(video=0) if packet.size]
        assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 24, 48, 72, 96, 120]
        assert all(packet.pts == packet.dts for packet in packets)
        assert len({later.pts - earlier.pts for earlier, later in itertools.pairwise(packets)}) == 1
        assert video.streams.video[0].average_rate == 24


def test_segments_come_while_frames_arrive(clip):
    with SegmentEncoder(64, 96, 24) as encoder:
        early = [*encoder.encode(clip[:72])]
        assert [s.frames for s in early][:2] == [24, 24]


def test_nothing_piles_up_inside():
    """What the encoder has not given back never exceeds two GOPs, however long the video."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 96, 3)).astype(np.uint8)
    with SegmentEncoder(64, 96, 24, gop_frames=12) as encoder:
        given = returned = 0
        for _ in range(40):
            returned += sum(s.frames for s in encoder.encode(noise))
            given += len(noise)
            assert given - returned <= 24
        returned += sum(s.frames for s in encoder.finish())
        assert returned == given == 480


@pytest.mark.parametrize("frames", [1, 11, 12, 13, 24])
def test_frame_count_is_exact(clip, frames):
    init, segments = encode(clip[:frames], gop_frames=12)
    assert sum(s.frames for s in segments) == frames
    assert len(segments) == -(-frames // 12)
    assert probe_video(init + b"".join(s.data for s in segments)).frames == frames


def test_no_frames_no_segments():
    with SegmentEncoder(64, 96, 24) as encoder:
        assert encoder.encode(np.zeros((0, 64, 96, 3), np.uint8)) == []
        assert encoder.finish() == []


@pytest.mark.parametrize(
    "rgb", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (224, 172, 105)]
)
def test_flat_colours_survive(rgb):
    init, segments = encode(np.full((3, 64, 64, 3), rgb, np.uint8))
    error = np.abs(decode(init + segments[0].data).astype(int) - rgb)
    assert error.max() <= 2


def test_colours_are_bt709_limited_and_say_so():
    init, segments = encode(np.full((1, 64, 64, 3), (255, 0, 0), np.uint8))
    with av.open(io.BytesIO(init + segments[0].data), "r", format="mp4") as video:
        frame = next(video.decode(video=0))
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
    # Red in BT.709 limited range: Y' = 16 + 219·0.2126 (BT.601 would give 81, full range 54).
    assert abs(int(frame.to_ndarray(format="yuv420p")[32, 32]) - 63) <= 1


def test_moving_pictures_keep_their_look(clip):
    init, segments = encode(clip)
    decoded = decode(init + b"".join(s.data for s in segments)).astype(int)
    error = decoded - clip
    assert np.abs(error).mean() < 2
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.25  # no colour cast
    # Nothing is shifted in time or space: every frame is nearest to itself.
    for frame in (0, 40, 120):
        assert np.abs(decoded[frame] - clip).mean(axis=(1, 2, 3)).argmin() == frame


def test_quality_changes_the_size(clip):
    sizes = [
        sum(len(s.data) for s in encode(clip, quality=VideoQuality(crf=crf, preset="ultrafast"))[1]) for crf in (12, 32)
    ]
    assert sizes[0] > 2 * sizes[1]


def test_strided_frames_are_read_right(clip):
    planar_FCYX = np.ascontiguousarray(clip[:5].transpose(0, 3, 1, 2))
    assert encode(planar_FCYX.transpose(0, 2, 3, 1)) == encode(clip[:5])


@pytest.mark.parametrize(("height", "width"), [(63, 64), (64, 63), (0, 64), (-2, 64)])
def test_odd_sizes_are_refused(height, width):
    with pytest.raises(ValueError, match="even"):
        SegmentEncoder(height, width, 24)


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": 24, "gop_frames": 0}])
def test_rates_are_checked(options):
    with pytest.raises(ValueError, match="at least 1"):
        SegmentEncoder(64, 64, **options)


@pytest.mark.parametrize("start", [{"first_frame": -1}, {"first_segment": -1}])
def test_starts_are_checked(start):
    with pytest.raises(ValueError, match="at least 0"):
        SegmentEncoder(64, 64, 24, **start)


@pytest.mark.parametrize("options", [{"crf": 0}, {"crf": 52}, {"preset": "best"}, {"threads": 0}])
def test_quality_is_checked(options):
    with pytest.raises(ValueError):
        VideoQuality(**options)


def test_sizes_beyond_the_encoder_are_a_media_error():
    with pytest.raises(MediaError, match="65536×64"):
        SegmentEncoder(64, 65536, 24)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 64, 32, 3), np.uint8), np.zeros((64, 64, 3), np.uint8),
     np.zeros((1, 3, 64, 64), np.uint8)],
)  # fmt: skip
def test_other_arrays_are_refused(frames):
    with SegmentEncoder(64, 64, 24) as encoder, pytest.raises(ValueError, match="uint8"):
        encoder.encode(frames)


def test_closed_is_closed(clip):
    encoder = SegmentEncoder(64, 96, 24)
    encoder.encode(clip[:3])
    encoder.close()
    encoder.close()
    with pytest.raises(ValueError, match="closed"):
        encoder.encode(clip[:3])
    with pytest.raises(ValueError, match="closed"):
        encoder.finish()
