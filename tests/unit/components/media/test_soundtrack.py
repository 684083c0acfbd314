import io

import av
import numpy as np
import pytest

from components.errors import MediaError
from components.media.mux import probe_video
from components.media.soundtrack import remux_with_sound
from tests.unit.components.media.conftest import FPS, segments_of
from tests.unit.components.media.sounds import encode, sweep, tone


def sound_of(path):
    """(samples [channels, samples], rate, seconds by the packets) of the file's soundtrack."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        seconds = float(stream.duration * stream.time_base)
        parts = [frame.to_ndarray() for frame in file.decode(stream)]
        return np.concatenate(parts, axis=1), stream.rate, seconds, stream.codec_context.name


@pytest.mark.parametrize("container", ["mp4", "mov"])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 6)])
def test_the_caller_s_sound_lies_under_the_pictures(tmp_path, container, rate, channels):
    wave, frames = sweep(1.55, rate, channels), 39  # the last frame begun counts
    out = tmp_path / f"film.{container}"
    written = remux_with_sound(
        segments_of(frames), io.BytesIO(encode(wave, rate)), out, fps=FPS, frames=frames, container=container
    )
    assert written == frames
    info = probe_video(out)
    assert (info.frames, info.faststart) == (frames, True)
    samples, out_rate, seconds, codec = sound_of(out)
    assert codec == "aac"
    assert abs(seconds - info.duration_s) <= 1 / FPS
    assert samples.shape[0] == channels
    assert out_rate == max(rate, 16_000)
    if out_rate == rate:
        heard = samples[0][: wave.shape[1]]
        known = wave[0][: len(heard)]
        shift = np.correlate(heard, known[2000:6000], "valid").argmax() - 2000
        assert abs(shift) <= 2  # the container hides the codec's delay
        inner = slice(2000, -3000)
        assert np.corrcoef(heard[inner], known[inner])[0, 1] > 0.99


def test_a_longer_sound_ends_with_the_pictures_and_a_shorter_one_before(tmp_path):
    for seconds, expected in ((3.0, 1.0), (0.5, 0.5)):
        remux_with_sound(segments_of(FPS), io.BytesIO(encode(tone(seconds))), tmp_path / "film.mp4", fps=FPS)
        assert abs(sound_of(tmp_path / "film.mp4")[2] - expected) <= 1 / FPS


def test_pictures_are_those_of_a_film_without_sound(tmp_path):
    def packets(path):
        with av.open(str(path)) as file:
            return [bytes(packet) for packet in file.demux(file.streams.video[0]) if packet.size]

    data = segments_of(12)
    remux_with_sound(data, io.BytesIO(encode(tone(0.5))), tmp_path / "film.mp4", fps=FPS)
    (tmp_path / "plain.mp4").write_bytes(b"".join(data))
    assert packets(tmp_path / "film.mp4") == packets(tmp_path / "plain.mp4")


def test_nothing_remains_of_a_failure(tmp_path):
    out = tmp_path / "film.mp4"
    sound = encode(tone(1))
    with pytest.raises(MediaError, match="12 frames; 13 were expected"):
        remux_with_sound(segments_of(12), io.BytesIO(sound), out, fps=FPS, frames=13)
    with pytest.raises(MediaError, match="no known sound"):
        remux_with_sound(segments_of(12), io.BytesIO(b"nothing"), out, fps=FPS)
    assert not out.exists()
