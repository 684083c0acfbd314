"""A client's sound: what it is, and its samples for the audio encoder.

Everything is decoded before anything is believed: the frames of a talking avatar are counted from the samples that are
there, and a damaged or cut off file shows before work begins. Memory is bounded by the longest sound accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from components.errors import MediaError
from components.media.container import HEAD_NBYTES, MAX_STREAMS, PROBE, sniff

ENCODER_RATE = 16_000
MIN_SECONDS = 0.4
MAX_SECONDS = 200.0
_MAX_RATE = 384_000
_MAX_CHANNELS = 8
_EXACT = frozenset({"mov", "wav", "flac", "matroska", "ogg"})
"""Containers that know how long they are, by the demuxers' first names; others estimate it."""
_SHORTFALL_S = 0.5  # headers may count priming and padding
_EXACT_LONG = 0.98


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """What a sound is. `samples` are those that the encoder gets, at ENCODER_RATE, counted by decoding."""

    duration_s: float
    sample_rate: int  # of the file
    channels: int
    codec: str
    samples: int


def probe_sound(file: BinaryIO, *, max_seconds: float = MAX_SECONDS) -> SoundInfo:
    """What an open, seekable file holds, after a full decode has shown that it is whole.

    Raises:
        MediaError: no known container, no sound in it, damaged, cut off, shorter than MIN_SECONDS or longer than
            `max_seconds`.
    """
    samples = 0
    with opened(file) as (container, stream):
        for part in _resampled(container, stream, max_seconds):
            samples += len(part)
        _refuse_shortened(container, stream, samples)
        _refuse_length(samples, max_seconds)
        codec = stream.codec_context
        return SoundInfo(samples / ENCODER_RATE, codec.sample_rate, codec.channels, codec.name, samples)


def read_sound(file: BinaryIO, *, max_seconds: float = MAX_SECONDS) -> NDArray[np.float32]:
    """The sound as the encoder takes it: 16 kHz mono fp32 [S] in [-1, 1]; channels are mixed down.

    Raises:
        MediaError: as `probe_sound`.
    """
    with opened(file) as (container, stream):
        parts = list(_resampled(container, stream, max_seconds))
        samples = sum(map(len, parts))
        _refuse_shortened(container, stream, samples)
        _refuse_length(samples, max_seconds)
    return np.concatenate(parts)


@contextmanager
def opened(file: BinaryIO) -> Iterator[tuple[InputContainer, AudioStream]]:
    """A container and its first stream of sound, within bounds that its headers tell. MediaError."""
    file.seek(0)
    demuxer = sniff(file.read(HEAD_NBYTES))
    if demuxer is None:
        raise MediaError("The file is no known sound; send WAV, MP3, FLAC, Ogg, MP4, MOV or WebM.")
    file.seek(0)
    try:
        with av.open(file, "r", format=demuxer, options=PROBE) as container:
            if len(container.streams) > MAX_STREAMS:
                raise MediaError(f"The file has {len(container.streams)} streams; at most {MAX_STREAMS} are accepted.")
            # A track whose codec is unknown comes without a codec context.
            stream = next((s for s in container.streams.audio if s.codec_context is not None), None)
            if stream is None:
                raise MediaError("The file holds no sound that can be read.")
            codec = stream.codec_context
            if not 0 < codec.sample_rate <= _MAX_RATE or not 0 < codec.channels <= _MAX_CHANNELS:
                raise MediaError(
                    f"The sound has {codec.channels} channels at {codec.sample_rate} Hz; up to {_MAX_CHANNELS} at "
                    f"up to {_MAX_RATE} Hz are accepted."
                )
            yield container, stream
    except FFmpegError as error:
        raise MediaError(f"The sound is damaged or cut off; send the whole file ({error.strerror}).") from error


def decoded(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Every frame of sound. MediaError for one that is damaged."""
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise MediaError("The sound is cut off in the middle; send the whole file.")
        yield from packet.decode()


def resampled(frames: Iterator[AudioFrame], resampler: av.AudioResampler) -> Iterator[AudioFrame]:
    """The frames at another rate or in another layout, with what the resampler holds at the end.

    Raises:
        MediaError: a frame is of another rate or layout than those before it.
    """
    for frame in frames:
        try:
            yield from resampler.resample(frame)
        except ValueError as error:  # what it says when a frame is unlike the first
            raise MediaError(
                "The sound changes its sample rate or channels on the way; save it in one form."
            ) from error
    yield from resampler.resample(None)


def _resampled(container: InputContainer, stream: AudioStream, max_seconds: float) -> Iterator[NDArray[np.float32]]:
    """Pieces of 16 kHz mono; ends with MediaError where they become more than `max_seconds`."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=ENCODER_RATE)
    left = int(max_seconds * ENCODER_RATE)
    for part in resampled(decoded(container, stream), resampler):
        samples = part.to_ndarray().reshape(-1).astype(np.float32, copy=False)
        left -= len(samples)
        if left < 0:
            raise MediaError(f"The sound is longer than {max_seconds:g} s; send a shorter one.")
        yield samples


def _refuse_length(samples: int, max_seconds: float) -> None:
    if samples < MIN_SECONDS * ENCODER_RATE:
        raise MediaError(
            f"The sound lasts {samples / ENCODER_RATE:g} s; {MIN_SECONDS:g} to {max_seconds:g} s are accepted."
        )


def _refuse_shortened(container: InputContainer, stream: AudioStream, samples: int) -> None:
    """Compares what was there with what the headers promise, where they know."""
    if container.format.name.split(",")[0] not in _EXACT:
        return
    if stream.duration is not None and stream.time_base is not None:
        promised_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        promised_s = container.duration / av.time_base
    else:
        return
    found_s = samples / ENCODER_RATE
    if found_s < promised_s * _EXACT_LONG - _SHORTFALL_S:
        raise MediaError(f"The sound is cut off: {found_s:.1f} s of {promised_s:.1f} s are there; send the whole file.")
