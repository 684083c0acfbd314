import io

import numpy as np
import pytest

from components.errors import MediaError
from components.media.sound import ENCODER_RATE, probe_sound, read_sound
from tests.unit.components.media.sounds import encode, tone


def read(data):
    return read_sound(io.BytesIO(data))


def loudest_hertz(wave):
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return np.fft.rfftfreq(len(wave), 1 / ENCODER_RATE)[spectrum.argmax()]


@pytest.mark.parametrize(
    ("container", "codec", "rate", "channels"),
    [
        ("wav", "pcm_s16le", 16_000, 1),
        ("wav", "pcm_s16le", 8_000, 1),
        ("wav", "pcm_s16le", 48_000, 6),
        ("flac", "flac", 44_100, 2),
        ("mp4", "aac", 44_100, 2),
        ("mov", "pcm_s16le", 22_050, 1),
        ("mp3", "libmp3lame", 44_100, 2),
        ("ogg", "libopus", 48_000, 2),
        ("webm", "libopus", 48_000, 1),
        ("matroska", "flac", 96_000, 1),
    ],
)
def test_any_sound_becomes_16_khz_mono(container, codec, rate, channels):
    data = encode(tone(1.5, rate, channels), rate, container=container, codec=codec)
    wave = read(data)
    assert wave.dtype == np.float32
    assert abs(len(wave) / ENCODER_RATE - 1.5) < 0.06  # lossy codecs pad
    middle = wave[len(wave) // 4 : -len(wave) // 4]
    octaves = [440 * 2**channel for channel in range(channels)]
    assert min(abs(loudest_hertz(middle) - hertz) for hertz in octaves) < 10
    assert 0.01 < np.abs(middle).max() <= 1

    info = probe_sound(io.BytesIO(data))
    assert (info.samples, info.duration_s) == (len(wave), len(wave) / ENCODER_RATE)
    assert (info.sample_rate, info.channels) == (rate, channels)


def test_16_khz_mono_passes_unchanged():
    wave = tone(0.5)
    levels = np.round(wave[0] * 32767)
    assert np.abs(read(encode(wave)) * 32768 - levels).max() <= 1.5


def test_silence_is_a_sound():
    assert not read(encode(np.zeros((1, 16_000), np.float32))).any()


def test_a_video_s_sound_is_found(video_with_sound):
    assert abs(len(read(video_with_sound)) / ENCODER_RATE - 1) < 0.06


def test_length_is_bounded_on_both_sides():
    assert len(read(encode(tone(0.4)))) == 0.4 * ENCODER_RATE
    with pytest.raises(MediaError, match=r"lasts 0\.39 s; 0\.4 to 200 s"):
        read(encode(tone(0.39)))
    assert len(read_sound(io.BytesIO(encode(tone(2))), max_seconds=2)) == 2 * ENCODER_RATE
    for function in (read_sound, probe_sound):
        with pytest.raises(MediaError, match="longer than 2 s"):
            function(io.BytesIO(encode(tone(2.01))), max_seconds=2)


@pytest.mark.parametrize(
    ("container", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("mp4", "aac"), ("matroska", "flac")]
)
def test_a_file_that_is_cut_off_is_refused(container, codec):
    data = encode(tone(8, 44_100, 2), 44_100, container=container, codec=codec)
    for function in (read_sound, probe_sound):
        with pytest.raises(MediaError, match="cut off"):
            function(io.BytesIO(data[: len(data) // 2]))


def test_a_damaged_tail_is_refused():
    data = bytearray(encode(tone(4, 44_100, 2), 44_100, container="flac", codec="flac"))
    data[-3000:] = bytes(range(250)) * 12
    with pytest.raises(MediaError, match="damaged or cut off"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no known sound"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "no known sound"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no known sound"),
        (b"RIFF\x24\x00\x00\x00WAVE", "damaged or cut off|no sound"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(200), "damaged or cut off|no sound"),
    ],
)
def test_what_is_no_sound_is_refused(data, message):
    with pytest.raises(MediaError, match=message):
        read(data)


def test_a_silent_video_has_no_sound(silent_video):
    with pytest.raises(MediaError, match="holds no sound"):
        read(silent_video)
