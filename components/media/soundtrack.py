"""The caller's own sound under a finished video: AAC at the sound's own rate and channels, the pictures untouched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from components.errors import MediaError
from components.media.mux import Chain, open_mp4, video_packets, video_stream
from components.media.sound import decoded, opened

_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)  # of AAC, from speech upward
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_BITS_PER_CHANNEL = 128_000
_FRAME = 1024  # samples of one AAC frame


def remux_with_sound(
    segments: Iterable[bytes],
    sound: BinaryIO,
    out_path: str | os.PathLike[str],
    *,
    fps: int,
    frames: int | None = None,
    container: str = "mp4",
) -> int:
    """As `mux.remux`, with a soundtrack that starts with the pictures and ends with them at the latest.

    The sound keeps its rate (AAC's next one above, where it has no such) and its channels (stereo, where they are not
    mono, stereo or 5.1). It is not stretched: a sound that ends before the pictures leaves silence.

    Args:
        segments: an init segment and the media segments behind it, cut anywhere.
        sound: an open, seekable file with sound.
        out_path: does not exist after any error.
        fps: of the video.
        frames: how many there must be.
        container: "mp4" or "mov".

    Raises:
        MediaError: the segments are not that video, or the sound cannot be read.
        OSError: `out_path` cannot be written.
    """
    out = Path(out_path)
    try:
        with opened(sound) as (source, track):
            copied = _write(segments, source, track, out, container, fps)
        if not copied or (frames is not None and copied != frames):
            wanted = "some" if frames is None else frames
            raise MediaError(f"The segments hold {copied} frames; {wanted} were expected.")
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return copied


def _write(
    segments: Iterable[bytes], source: InputContainer, track: AudioStream, out_path: Path, container: str, fps: int
) -> int:
    frames = 0
    try:
        with open_mp4(Chain(segments)) as video:
            pictures = video_stream(video)
            options = {"movflags": "faststart", "fflags": "+bitexact"}
            with av.open(out_path, "w", format=container, options=options) as out:
                copy = out.add_stream_from_template(pictures)
                soundtrack = _Soundtrack(out, source, track)
                for packet in video_packets(video, pictures):
                    packet.stream = copy
                    out.mux(packet)
                    frames += 1
                    soundtrack.advance(Fraction(frames, fps))
                soundtrack.finish()
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise MediaError(f"The segments and the sound cannot be joined: {error.strerror}.") from error
    return frames


class _Soundtrack:
    """Encodes a sound as far as the pictures have come, so that both lie side by side in the file."""

    def __init__(self, out: OutputContainer, source: InputContainer, track: AudioStream) -> None:
        self._rate = next((rate for rate in _RATES if rate >= track.codec_context.sample_rate), _RATES[-1])
        layout = _LAYOUTS.get(track.codec_context.channels, "stereo")
        self._out = out
        self._stream = out.add_stream("aac", rate=self._rate, layout=layout)
        self._stream.bit_rate = _BITS_PER_CHANNEL * self._stream.codec_context.channels
        self._resampler = av.AudioResampler(format="fltp", layout=layout, rate=self._rate)
        self._fifo = AudioFifo()
        self._parts = self._resampled(decoded(source, track))
        self._taken = 0  # samples given to the encoder
        self._limit = 0

    def advance(self, until_s: Fraction) -> None:
        """Encodes up to a time, whole frames only."""
        self._limit = int(until_s * self._rate)
        while self._taken + _FRAME <= self._limit and self._fill(_FRAME):
            self._encode(_FRAME)

    def finish(self) -> None:
        """Encodes what is left up to the last time given, and closes the track."""
        while (left := min(_FRAME, self._limit - self._taken)) > 0 and (self._fill(left) or self._fifo.samples):
            self._encode(min(left, self._fifo.samples))
        self._mux(self._stream.encode(None))

    def _fill(self, samples: int) -> bool:
        """Whether so many samples are there, after decoding as much as that takes."""
        while self._fifo.samples < samples:
            part = next(self._parts, None)
            if part is None:
                return False
            self._fifo.write(part)
        return True

    def _encode(self, samples: int) -> None:
        frame = self._fifo.read(samples)
        if frame is None:
            return
        frame.pts, frame.time_base = self._taken, Fraction(1, self._rate)
        self._taken += samples
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[Packet[AudioStream]]) -> None:
        for packet in packets:
            self._out.mux(packet)

    def _resampled(self, frames: Iterator[AudioFrame]) -> Iterator[AudioFrame]:
        for frame in frames:
            yield from self._resampler.resample(frame)
        yield from self._resampler.resample(None)
