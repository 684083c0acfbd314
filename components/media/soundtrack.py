"""What is heard under a finished video: AAC in MP4 and MOV, Opus in WebM. The pictures are untouched.

One sound keeps its rate (AAC's next one above, where it has no such; Opus knows 48 kHz only) and its channels (stereo,
where they are not mono, stereo or 5.1); several are mixed (`components.media.mix`). Sound is never stretched: it begins
with the pictures and ends with them, and where it is shorter there is silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from components.media.mix import Heard, Mix, mixed

_BITS_PER_CHANNEL = 128_000


@dataclass(frozen=True, slots=True)
class Sound:
    """Sounds that are heard at once, under so many pictures a second."""

    heard: Sequence[Heard]
    fps: int


@dataclass(frozen=True, slots=True)
class _Codec:
    encoder: Literal["aac", "libopus"]
    rates: Sequence[int]
    block: int  # samples of one frame


# AAC's rates from speech upward.
_AAC = _Codec("aac", (16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000), 1024)
_OPUS = _Codec("libopus", (48_000,), 960)


def copy_pictures(out: OutputContainer, pictures: Iterable[Packet[VideoStream]], sound: Sound | None) -> int:
    """Writes coded pictures into a file as they are, and a soundtrack beside them; returns how many pictures.

    Args:
        out: has the pictures' stream already.
        pictures: of that stream.
        sound: None for a silent file.

    Raises:
        MediaError: a sound cannot be read.
    """
    codec = _OPUS if out.format.name == "webm" else _AAC
    opened = nullcontext() if sound is None else mixed(sound.heard, rates=codec.rates, block=codec.block)
    count = 0
    with opened as mix:
        track = None if mix is None else _Track(out, mix, codec)
        for packet in pictures:
            out.mux(packet)
            count += 1
            if track is not None and sound is not None:
                track.advance(Fraction(count, sound.fps))
        if track is not None:
            track.finish()
    return count


class _Track:
    """Encodes a mix as far as the pictures have come, so that both lie side by side in the file."""

    def __init__(self, out: OutputContainer, mix: Mix, codec: _Codec) -> None:
        self._out = out
        self._mix = mix
        self._block = codec.block
        self._stream = out.add_stream(codec.encoder, rate=mix.rate, layout=mix.layout)
        self._stream.bit_rate = _BITS_PER_CHANNEL * mix.channels
        # Opus knows no planar samples.
        self._resampler = av.AudioResampler(format=self._stream.format, layout=mix.layout, rate=mix.rate)
        self._taken = 0  # samples given to the encoder
        self._limit = 0

    def advance(self, until_s: Fraction) -> None:
        """Encodes up to a time, whole frames only."""
        self._limit = int(until_s * self._mix.rate)
        while self._taken + self._block <= self._limit:
            self._encode(self._block)

    def finish(self) -> None:
        """Encodes what is left up to the last time given, and closes the track."""
        if self._taken < self._limit:
            self._encode(self._limit - self._taken)
        self._put(self._stream.encode(None))

    def _encode(self, samples: int) -> None:
        block_CS = next(self._mix.blocks)[:, :samples]
        frame = av.AudioFrame.from_ndarray(block_CS.copy(), format="fltp", layout=self._mix.layout)
        frame.sample_rate, frame.pts, frame.time_base = self._mix.rate, self._taken, Fraction(1, self._mix.rate)
        self._taken += samples
        for converted in self._resampler.resample(frame):
            self._put(self._stream.encode(converted))

    def _put(self, packets: Sequence[Packet[AudioStream]]) -> None:
        for packet in packets:
            self._out.mux(packet)
