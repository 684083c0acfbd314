"""Sound files made here, in the containers and layouts that clients send."""

import io
from fractions import Fraction

import av
import numpy as np


def tone(seconds, rate=16_000, channels=1, hertz=440.0, level=0.3):
    """fp32 [channels, samples]; each channel an octave above the one before."""
    times = np.arange(round(seconds * rate)) / rate
    return np.stack([level * np.sin(2 * np.pi * hertz * 2**c * times) for c in range(channels)]).astype(np.float32)


def sweep(seconds, rate=16_000, channels=1, level=0.3):
    """The same shape; no two moments sound alike."""
    times = np.arange(round(seconds * rate)) / rate
    phases = [2 * np.pi * (200 * (c + 1) * times + 900 * times**2) for c in range(channels)]
    return np.stack([level * np.sin(phase) for phase in phases]).astype(np.float32)


def encode(wave, rate=16_000, *, container="wav", codec="pcm_s16le", layout=None) -> bytes:
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[wave.shape[0]]
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        source = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format="fltp", layout=layout)
        source.sample_rate, source.pts, source.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size
        )
        for frame in (*resampler.resample(source), *resampler.resample(None)):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()
