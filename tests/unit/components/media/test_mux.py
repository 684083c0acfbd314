import io
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from components.errors import MediaError
from components.media.boxes import top_level
from components.media.mux import VideoInfo, joined, probe_video, remux
from components.media.segments import SegmentEncoder, VideoQuality


@pytest.fixture
def pieces(clip):
    """The init segment and six media segments."""
    with SegmentEncoder(64, 96, 24) as encoder:
        segments = [*encoder.encode(clip), *encoder.finish()]
    return [encoder.init, *(segment.data for segment in segments)]


def yuv(file):
    with av.open(file, "r", format="mp4") as video:
        return np.stack([frame.to_ndarray() for frame in video.decode(video=0)])


def coded(file):
    with av.open(file, "r", format="mp4") as video:
        return [bytes(packet) for packet in video.demux(video=0) if packet.size]


def test_final_file(pieces, tmp_path):
    out = tmp_path / "out.mp4"
    assert remux(pieces, out, frames=121) == 121
    assert probe_video(out) == VideoInfo(
        width=96, height=64, frames=121, duration_s=121 / 24, fps=24.0, codec="h264", pix_fmt="yuv420p", faststart=True
    )
    with out.open("rb") as file:
        kinds = list(top_level(file))
    assert kinds.index("moov") < kinds.index("mdat") and "moof" not in kinds
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_pictures_are_untouched(pieces, tmp_path):
    out = tmp_path / "out.mp4"
    remux(pieces, out)
    whole = io.BytesIO(b"".join(pieces))
    np.testing.assert_array_equal(yuv(str(out)), yuv(whole))
    whole.seek(0)
    assert coded(str(out)) == coded(whole)


def test_colour_tags_survive(pieces, tmp_path):
    remux(pieces, tmp_path / "out.mp4")
    with av.open(tmp_path / "out.mp4", "r", format="mp4") as video:
        frame = next(video.decode(video=0))
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
    assert frame.time == 0.0


def encoded(frames, **options):
    with SegmentEncoder(*frames.shape[1:3], 24, **options) as encoder:
        segments = [*encoder.encode(frames), *encoder.finish()]
    return encoder.init, [segment.data for segment in segments]


def test_two_chunks_make_one_timeline(clip, tmp_path):
    out = tmp_path / "out.mp4"
    chunks = [encoded(clip[:61]), encoded(clip[61:], first_frame=61, first_segment=3)]
    assert remux(joined(chunks), out, frames=121) == 121
    info = probe_video(out)
    assert (info.frames, info.duration_s, info.fps) == (121, 121 / 24, 24.0)
    with av.open(out, "r", format="mp4") as video:
        frames = [(frame.pts * frame.time_base, frame.to_ndarray()) for frame in video.decode(video=0)]
    assert [time for time, _ in frames] == [Fraction(index, 24) for index in range(121)]
    alone = [yuv(io.BytesIO(init + b"".join(media))) for init, media in chunks]
    np.testing.assert_array_equal(np.stack([pixels for _, pixels in frames]), np.concatenate(alone))


def test_chunks_of_other_parameters_are_not_joined(clip, tmp_path):
    for other in (clip[:5, :32], clip[:5]):
        quality = VideoQuality(preset="ultrafast") if other.shape == clip[:5].shape else VideoQuality()
        with pytest.raises(MediaError, match="Chunk 1 is encoded with other parameters"):
            remux(joined([encoded(clip[:5]), encoded(other, first_frame=5, quality=quality)]), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_equal_segments_give_equal_files(pieces, tmp_path):
    remux(pieces, tmp_path / "a.mp4")
    remux(iter(pieces), str(tmp_path / "b.mp4"))
    whole = b"".join(pieces)
    remux((whole[i : i + 100] for i in range(0, len(whole), 100)), tmp_path / "c.mp4")
    remux(io.BytesIO(whole), tmp_path / "d.mp4")
    assert len({(tmp_path / f"{name}.mp4").read_bytes() for name in "abcd"}) == 1


def test_one_frame(clip, tmp_path):
    with SegmentEncoder(64, 96, 24) as encoder:
        segments = [*encoder.encode(clip[:1]), *encoder.finish()]
    assert remux([encoder.init, segments[0].data], tmp_path / "out.mp4", frames=1) == 1
    assert probe_video(tmp_path / "out.mp4").duration_s == pytest.approx(1 / 24)


def test_segments_are_fetched_one_at_a_time(pieces, tmp_path):
    asked = []

    def fetch():
        for index, piece in enumerate(pieces):
            asked.append(index)
            yield piece

    remux(fetch(), tmp_path / "out.mp4")
    assert asked == list(range(7))


@pytest.mark.parametrize("bad", [[], [b""], [b"not a video" * 100]])
def test_not_a_video(bad, tmp_path):
    with pytest.raises(MediaError):
        remux(bad, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_missing_segments_are_noticed(pieces, tmp_path):
    for kept in (pieces[:1], pieces[:-1], pieces[:2]):
        with pytest.raises(MediaError, match="121 were expected"):
            remux(kept, tmp_path / "out.mp4", frames=121)
    with pytest.raises(MediaError, match="0 frames"):
        remux(pieces[:1], tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_cut_off_anywhere_is_noticed(pieces, tmp_path):
    whole = b"".join(pieces)
    for cut in range(1, len(whole), 97):
        with pytest.raises(MediaError):
            remux([whole[:cut]], tmp_path / "out.mp4", frames=121)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_source_passes_through(pieces, tmp_path):
    def fetch():
        yield pieces[0]
        yield pieces[1]
        raise ConnectionError("the store is away")

    with pytest.raises(ConnectionError, match="the store is away"):
        remux(fetch(), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_path_is_an_os_error(pieces, tmp_path):
    with pytest.raises(OSError):
        remux(pieces, tmp_path / "missing" / "out.mp4")


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_full_disk_is_an_os_error_and_leaves_nothing(pieces, tmp_path, share):
    (tmp_path / "in.mp4").write_bytes(b"".join(pieces))
    remux(pieces, tmp_path / "whole.mp4")
    limit = int((tmp_path / "whole.mp4").stat().st_size * share)
    code = (
        "import resource, sys\n"
        "from components.media.mux import remux\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try:\n"
        f"    remux([open({str(tmp_path / 'in.mp4')!r}, 'rb').read()], {str(tmp_path / 'out.mp4')!r})\n"
        "except OSError as error:\n"
        "    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=os.getcwd()).returncode == 7
    assert not (tmp_path / "out.mp4").exists()


def test_probe_reads_bytes_and_fragments(pieces, tmp_path):
    remux(pieces, tmp_path / "out.mp4")
    assert probe_video((tmp_path / "out.mp4").read_bytes()) == probe_video(tmp_path / "out.mp4")
    assert probe_video(b"".join(pieces)).frames == 121
    assert probe_video(pieces[0] + pieces[3]).frames == 24


def test_probe_sees_a_late_moov(pieces, tmp_path):
    path = tmp_path / "late.mp4"
    with av.open(io.BytesIO(b"".join(pieces)), "r", format="mp4") as video, av.open(path, "w", format="mp4") as out:
        copy = out.add_stream_from_template(video.streams.video[0])
        for packet in video.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    assert not probe_video(path).faststart
    assert probe_video(path).frames == 121


def test_probe_refuses_what_is_no_video(pieces, tmp_path):
    remux(pieces, tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    for bad in (b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"#EXTM3U\nfile:///etc/passwd\n", data[:-1], data[:3000]):
        with pytest.raises(MediaError):
            probe_video(bad)
    with pytest.raises(FileNotFoundError):
        probe_video(tmp_path / "missing.mp4")
