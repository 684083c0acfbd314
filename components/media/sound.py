"""A client's sound: how long it is, by decoding it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from components.errors import MediaError
from components.media.container import HEAD_NBYTES, probe_media, sniff


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """A whole, readable sound."""

    media_type: str
    duration_s: float
    frames: int  # of a video that is as long, the last one begun
    sample_rate: int
    channels: int


def measure(file: BinaryIO, *, max_duration_s: float, fps: int) -> SoundInfo:
    """Decodes an open, seekable file to its end, at most `max_duration_s` of it.

    Raises:
        MediaError: no sound, damaged or cut off, empty, or longer.
    """
    with opened(file) as (container, stream):
        rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        samples = 0
        for frame in container.decode(stream):
            samples += frame.samples
            if samples > max_duration_s * rate:
                raise MediaError(f"The sound is longer than {max_duration_s:g} s.")
    if not samples:
        raise MediaError("The sound is empty.")
    length = Fraction(samples, rate)
    file.seek(0)
    media_type = probe_media(file, max_pixels=2**31, max_duration_s=math.inf).media_type
    return SoundInfo(media_type, float(length), math.ceil(length * fps), rate, channels)


@contextmanager
def opened(file: BinaryIO) -> Iterator[tuple[InputContainer, AudioStream]]:
    """The first sound track of a file whose container is told by its bytes. MediaError."""
    file.seek(0)
    demuxer = sniff(file.read(HEAD_NBYTES))
    if demuxer is None:
        raise MediaError("The file is no known sound; send WAV, MP3, FLAC, Ogg or MP4.")
    file.seek(0)
    try:
        with av.open(file, "r", format=demuxer) as container:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                raise MediaError("The file has no sound track that can be read.")
            yield container, container.streams.audio[0]
    except FFmpegError as error:
        raise MediaError(f"The sound is damaged or cut off: {error.strerror}.") from error
