import io
from fractions import Fraction

import av
import numpy as np
import pytest

from components.errors import MediaError
from components.media.join import join_webm
from components.media.mix import Heard, check
from components.media.mux import probe_video, remux
from components.media.soundtrack import Sound
from components.media.webm import WebmEncoder
from tests.unit.components.media.conftest import FPS, moving_picture, segments_of
from tests.unit.components.media.sounds import encode, sweep, tone


def heard(data, frames, begins_s=None):
    return Heard(io.BytesIO(data), Fraction(frames, FPS), begins_s)


def write(out, frames, *sounds):
    """A film of so many frames with sounds; the container is that of the name."""
    sound = Sound(sounds, FPS) if sounds else None
    if out.suffix != ".webm":
        remux(segments_of(frames), out, frames=frames, container=out.suffix[1:], sound=sound)
        return
    parts = [out.with_name(f"part-{index}") for index in range(2)]
    picture, half = moving_picture(frames), frames // 2
    for part, first, some in zip(parts, (0, half), (picture[:half], picture[half:]), strict=True):
        with WebmEncoder(part, 64, 96, FPS, crf=40, first_frame=first) as encoder:
            encoder.add(some)
            encoder.finish()
    join_webm(parts, out, frames=frames, sound=sound)


def sound_of(path):
    """(samples [channels, samples], rate, codec, seconds) of the file's soundtrack, as a player hears it."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        codec = stream.codec_context
        resampler = av.AudioResampler(format="fltp", layout=codec.layout, rate=codec.sample_rate)
        parts = [part.to_ndarray() for frame in file.decode(stream) for part in resampler.resample(frame)]
        samples = np.concatenate(parts, axis=1)
        # MP4 says where within its last frame a track ends; WebM makes the decoder end there.
        seconds = float(stream.duration * stream.time_base) if stream.duration else samples.shape[1] / codec.sample_rate
        return samples, codec.sample_rate, codec.name, seconds


def like(samples, known, rate, begin_s=0.1, end_s=0.1):
    """How alike two sounds of one rate are, and how many samples apart; ends are left out."""
    begin, end = round(begin_s * rate), len(known) - round(end_s * rate)
    reach = rate // 50
    apart = [np.corrcoef(samples[begin + k : end + k], known[begin:end])[0, 1] for k in range(-reach, reach)]
    return max(apart), int(np.argmax(apart)) - reach


@pytest.mark.parametrize("container", ["mp4", "mov", "webm"])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 6)])
def test_the_caller_s_sound_lies_under_the_pictures(tmp_path, container, rate, channels):
    wave, frames = sweep(1.55, rate, channels), 39  # the last frame begun counts
    out = tmp_path / f"film.{container}"
    write(out, frames, heard(encode(wave, rate), frames))
    if container != "webm":
        info = probe_video(out)
        assert (info.frames, info.faststart) == (frames, True)
    samples, out_rate, codec, seconds = sound_of(out)
    assert (samples.shape[0], codec) == (channels, "opus" if container == "webm" else "aac")
    assert out_rate == (48_000 if container == "webm" else max(rate, 16_000))
    assert abs(seconds - frames / FPS) <= 1 / FPS
    if out_rate == rate:
        alike, shift = like(samples[0], wave[0], rate)
        assert alike > 0.99
        assert abs(shift) <= 2  # the container hides the codec's delay


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_the_sound_ends_with_the_pictures_whatever_its_length(tmp_path, container):
    out = tmp_path / f"film.{container}"
    for given_s in (3.0, 0.5):
        write(out, FPS, heard(encode(tone(given_s)), FPS))
        samples, rate, _, seconds = sound_of(out)
        assert abs(seconds - 1) <= 1 / FPS
        late = np.abs(samples[0, round(0.55 * rate) : rate]).max()
        assert (late > 0.2) == (given_s > 1)


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_two_voices_are_heard_at_once(tmp_path, container):
    first, second = sweep(2, 48_000), tone(1, 48_000, hertz=700)
    out = tmp_path / f"film.{container}"
    write(out, 50, heard(encode(first, 48_000), 50), heard(encode(second, 48_000), 50))
    samples, rate, *_ = sound_of(out)
    both = first[0].copy()
    both[:48_000] += second[0]
    assert samples.shape[0] == 1
    assert like(samples[0], both, rate)[0] > 0.99
    assert abs(np.abs(samples[0, 48_000:90_000]).max() - 0.3) < 0.05  # as loud as it came


def test_loud_voices_are_made_quieter_together_and_never_clipped(tmp_path):
    wave = tone(1, 48_000, level=0.9)
    write(tmp_path / "film.mp4", FPS, heard(encode(wave, 48_000), FPS), heard(encode(wave[:, :24_000], 48_000), FPS))
    samples, *_ = sound_of(tmp_path / "film.mp4")
    loud, alone = samples[0, 4_000:20_000], samples[0, 28_000:44_000]
    assert abs(np.abs(loud).max() - 1) < 0.05
    assert abs(np.abs(alone).max() - 0.5) < 0.03
    assert like(samples[0], np.concatenate([wave[0, :24_000], wave[0, 24_000:] / 2]), 48_000)[0] > 0.99


def test_voices_of_unlike_files_meet_at_the_finest_and_widest(tmp_path):
    quiet = np.zeros((2, 44_100), np.float32)
    voice = tone(1, 16_000)
    sounds = [heard(encode(quiet, 44_100), FPS), heard(encode(voice), FPS)]
    write(tmp_path / "film.mp4", FPS, *sounds)
    samples, rate, *_ = sound_of(tmp_path / "film.mp4")
    assert (samples.shape[0], rate) == (2, 44_100)
    middle = np.abs(samples[:, 10_000:30_000]).max(axis=1)
    assert middle == pytest.approx([0.3, 0.3], abs=0.03)  # one channel is not made quieter by becoming two


@pytest.mark.parametrize("begins_s", [-0.25, 0.0, 0.5])
def test_a_source_is_heard_where_it_is_seen_and_then_it_is_silent(tmp_path, begins_s):
    wave = sweep(2, 48_000)
    write(tmp_path / "film.mp4", 50, heard(encode(wave, 48_000), 25, begins_s))
    samples, rate, _, seconds = sound_of(tmp_path / "film.mp4")
    assert abs(seconds - 2) <= 1 / FPS
    at = round(begins_s * rate)
    shown = wave[0, at : at + rate] if at >= 0 else np.concatenate([np.zeros(-at, np.float32), wave[0, : rate + at]])
    assert like(samples[0], shown, rate, begin_s=max(0.05, 0.05 - begins_s))[0] > 0.99
    assert np.abs(samples[0, round(1.05 * rate) :]).max() < 0.01
    assert np.abs(samples[0, : max(1, -at - 2_000)]).max() < 0.01


def test_pictures_are_those_of_a_film_without_sound(tmp_path):
    def packets(path):
        with av.open(str(path)) as file:
            return [bytes(packet) for packet in file.demux(file.streams.video[0]) if packet.size]

    write(tmp_path / "film.mp4", 12, heard(encode(tone(0.5)), 12))
    (tmp_path / "plain.mp4").write_bytes(b"".join(segments_of(12)))
    assert packets(tmp_path / "film.mp4") == packets(tmp_path / "plain.mp4")


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_equal_sounds_give_equal_bytes(tmp_path, container):
    made = []
    for name in "ab":
        out = tmp_path / f"{name}.{container}"
        write(out, 25, heard(encode(tone(1, 44_100, 2), 44_100), 25), heard(encode(sweep(0.7)), 25))
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_nothing_remains_of_a_failure(tmp_path):
    out = tmp_path / "film.mp4"
    with pytest.raises(MediaError, match="12 frames; 13 were expected"):
        remux(segments_of(12), out, frames=13, sound=Sound([heard(encode(tone(1)), 13)], FPS))
    with pytest.raises(MediaError, match="no known sound"):
        write(out, 12, heard(b"nothing", 12))
    assert not out.exists()
    with pytest.raises(MediaError, match="no known sound"):
        write(tmp_path / "film.webm", 12, heard(b"nothing", 12))
    assert not (tmp_path / "film.webm").exists()


def test_a_sound_is_checked_as_far_as_it_is_heard():
    data = encode(sweep(8, 44_100, 2), 44_100, container="mp4", codec="aac")
    check(heard(data, 200, 0.0))
    with pytest.raises(MediaError, match="cut off"):
        check(heard(data[: len(data) // 2], 200, 0.0))
