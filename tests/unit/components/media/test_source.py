import io
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from components.errors import MediaError
from components.media.source import SourceVideo, resize
from tests.unit.components.media.conftest import moving_picture

LIMITS = {"max_pixels": 100_000, "max_duration_s": 60.0}
SIZE = {"height": 64, "width": 96, "fps": 24}


def video(frames, times=None, *, rate=24, container="mp4", rotation=0, codec="libx264", tags=(1, 1, 1), options=None):
    """A file with these frames [F, Y, X, 3]; `times` in ticks of 1/1000 s for a variable rate."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {"crf": "1", "g": "10", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = tags
        if times is not None:
            context.time_base = stream.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="itu709"
            )
            frame.pts = index if times is None else times[index]
            frame.time_base = Fraction(1, 1000) if times is not None else Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file


def source(file, **limits):
    return SourceVideo(file, **(LIMITS | limits))


BARS = 1 << np.arange(8)


def marked(count):
    """Frames that are told apart by eight bars, black or white: the bits of their number."""
    bars = np.repeat((np.arange(count)[:, None] & BARS) > 0, 12, axis=1).astype(np.uint8) * 255
    return np.broadcast_to(bars[:, None, :, None], (count, 64, 96, 3)).copy()


def marks(frames):
    return [int(((np.split(frame, 8, axis=1) > np.uint8(127)).mean(axis=(1, 2, 3)) > 0.5) @ BARS) for frame in frames]


@pytest.mark.parametrize("container", ["mp4", "mov", "webm"])
def test_of_a_video_at_the_models_rate_the_last_frames_one_by_one(container):
    codec = {"codec": "libvpx-vp9", "options": {"lossless": "1", "g": "10"}} if container == "webm" else {}
    got = source(video(marked(60), container=container, **codec)).tail(25, **SIZE)
    assert got.shape == (25, 64, 96, 3)
    assert got.dtype == np.uint8
    assert marks(got) == list(range(35, 60))


def test_pictures_are_upright_rgb_of_the_right_colours(clip):
    got = source(video(clip)).tail(9, **SIZE)
    assert np.abs(got.astype(int) - clip[-9:]).mean() < 3


def test_a_video_of_almost_the_models_rate_loses_no_frame():
    times = [round(index * 1001 / 24) for index in range(60)]
    assert marks(source(video(marked(60), times)).tail(33, **SIZE)) == list(range(27, 60))


def test_other_rates_keep_their_speed():
    twice = marks(source(video(marked(80), rate=48)).tail(9, **SIZE))
    assert twice == list(range(63, 80, 2))
    half = marks(source(video(marked(40), rate=12)).tail(9, **SIZE))
    assert half[0] in {35, 36}
    assert half[-1] == 39
    assert sorted(half) == half
    assert len(set(half)) == 5


def test_variable_rates_keep_their_speed():
    times = [*range(0, 1000, 125), *range(1000, 2000, 10)]  # 8 frames in the first second, 100 in the next
    got = marks(source(video(marked(108), times)).tail(25, **SIZE))
    expected = [min(range(108), key=lambda i: abs(times[i] - (1990 - step * 1000 / 24))) for step in range(24, -1, -1)]
    assert np.abs(np.array(got) - expected).max() <= 1


def test_a_rotated_video_is_turned():
    frames = moving_picture(12, height=48, width=80)
    for rotation in (90, 180, -90):
        opened = source(video(frames, rotation=rotation))
        expected = np.rot90(frames[-1], rotation // 90)
        assert (opened.info.height, opened.info.width) == expected.shape[:2]
        (got,) = opened.tail(1, height=expected.shape[0], width=expected.shape[1], fps=24)
        assert np.abs(got.astype(int) - expected).mean() < 4
        shown = list(opened.whole(height=expected.shape[0], width=expected.shape[1], fps=24))
        assert np.abs(shown[-1][0].astype(int) - expected).mean() < 4


def test_whole_is_on_the_same_grid_and_ends_with_the_same_frame():
    opened = source(video(marked(31), rate=48))
    whole = [marks(frame)[0] for frame in opened.whole(**SIZE)]
    assert whole == list(range(0, 31, 2))
    assert whole[-5:] == marks(opened.tail(5, **SIZE))


def test_memory_holds_the_frames_asked_for_only():
    chosen = source(video(marked(100))).whole(height=32, width=32, fps=24)
    assert iter(chosen) is chosen  # one by one
    assert next(chosen).shape == (1, 32, 32, 3)


def test_what_it_is(clip):
    info = source(video(clip)).info
    assert (info.width, info.height, info.frames, info.sound) == (96, 64, 121, False)
    assert info.duration_s == pytest.approx(121 / 24, abs=1e-3)


def test_a_video_as_long_as_the_prefix_will_do_and_a_shorter_one_is_refused():
    assert marks(source(video(marked(25))).tail(25, **SIZE)) == list(range(25))
    with pytest.raises(MediaError, match=r"lasts 1\.00 s; at least 1\.04 s are needed"):
        source(video(marked(24))).tail(25, **SIZE)
    with pytest.raises(MediaError, match="at least"):
        source(video(marked(1))).tail(2, **SIZE)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(transfer, name):
    file = video(marked(3), tags=(9, 9, transfer), codec="libx265", options={"x265-params": "log-level=none"})
    with pytest.raises(MediaError, match=f"HDR .{name}."):
        source(file)


def test_a_file_without_its_end_is_refused(tmp_path):
    file = video(moving_picture(60), container="mp4")
    data = file.getvalue()
    with pytest.raises(MediaError, match=r"damaged|cut off"):  # the table of contents is at the end
        source(io.BytesIO(data[: len(data) // 2]))
    front = tmp_path / "front.mp4"
    with (
        av.open(io.BytesIO(data)) as whole,
        av.open(front, "w", format="mp4", options={"movflags": "faststart"}) as out,
    ):
        copy = out.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    with pytest.raises(MediaError, match="cut off"):
        source(io.BytesIO(front.read_bytes()[: front.stat().st_size * 7 // 10]))


def test_a_corrupt_end_is_refused_or_read_but_never_shortened():
    clean = video(moving_picture(60), options={"crf": "1", "g": "250", "bf": "0"}).getvalue()
    at = clean.index(b"mdat")
    length = int.from_bytes(clean[at - 4 : at], "big")
    damaged = bytearray(clean)
    damaged[at + length * 4 // 5 : at + length - 8] = bytes(len(damaged[at + length * 4 // 5 : at + length - 8]))
    with pytest.raises(MediaError, match=r"cut off|cannot be decoded"):
        source(io.BytesIO(bytes(damaged))).tail(25, **SIZE)


def test_what_is_no_video_is_refused():
    picture, sound = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with av.open(sound, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    for file, message in (
        (picture, "no known video"),
        (sound, "no pictures"),
        (io.BytesIO(), "no known video"),
        (io.BytesIO(b"#EXTM3U\nhttp://example.com/a.ts\n"), "no known video"),
        (io.BytesIO(b"\0\0\0\x18ftypisom" + bytes(99)), r"damaged|no pictures"),
    ):
        with pytest.raises(MediaError, match=message):
            source(file)


def test_bounds():
    with pytest.raises(MediaError, match="at most 6000 pixels"):
        source(video(marked(3)), max_pixels=6000)
    with pytest.raises(MediaError, match=r"lasts 2\.\d+ s; at most 2 s"):
        source(video(marked(60)), max_duration_s=2.0)


@pytest.mark.parametrize("size", [(30, 44), (1, 1), (1080, 7), (481, 853)])
def test_resize_is_the_nearest_interpolation_of_pytorch(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for height, width in ((32, 48), (480, 848), (544, 960), (16, 16)):
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(planes, (height, width), mode="nearest")
        assert torch.equal(torch.from_numpy(resize(pixels, height, width)).float(), expected[0].permute(1, 2, 0))
