"""Sounds that are heard at once, as one: each from its own moment on, added, and silence where none is left.

Several sounds are added as loud as they are. Where their sum would leave the range of samples anywhere, all of it is
made quieter by the one factor that just keeps it inside; so nothing is clipped and their balance stays. Both passes
stream: memory does not grow with the sounds.

Shape letters: C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, repeat, zip_longest
from typing import BinaryIO

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from components.media.sound import decoded, opened, resampled

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
_OTHER_LAYOUT = "stereo"
_CHANNELS = {layout: channels for channels, layout in _LAYOUTS.items()}


@dataclass(frozen=True, slots=True)
class Heard:
    """A file's sound and where it lies under a video."""

    file: BinaryIO  # open, seekable
    length_s: Fraction  # heard so long at most
    begins_s: float | None = None  # of the file's own time, where the video begins; None: at its first sample


def check(sound: Heard) -> None:
    """Reads a sound as far as it is to be heard. MediaError when that fails."""
    with _opened([sound]) as (track,):
        for _ in _samples(track, track[2].codec_context.sample_rate, _layout(track[2])):
            pass


@dataclass(frozen=True, slots=True)
class Mix:
    """Sounds as one. `blocks` are fp32 [C, S] of equal S, without end: silence follows the last sound."""

    rate: int
    layout: str
    blocks: Iterator[NDArray[np.float32]]

    @property
    def channels(self) -> int:
        return _CHANNELS[self.layout]


@contextmanager
def mixed(sounds: Sequence[Heard], *, rates: Sequence[int], block: int) -> Iterator[Mix]:
    """Several sounds, or one, at the rate of the finest and with the channels of the widest.

    Args:
        sounds: at least one.
        rates: ascending; the first that is no lower than a sound's own is taken, else the last.
        block: samples of a block.

    Raises:
        MediaError: a sound cannot be read, now or at a later block.
    """
    with _opened(sounds) as tracks:
        highest = max(track.codec_context.sample_rate for _, _, track in tracks)
        rate = next((rate for rate in rates if rate >= highest), rates[-1])
        layout = max((_layout(track) for _, _, track in tracks), key=_CHANNELS.__getitem__)
        gain = np.float32(1)
        if len(sounds) > 1:
            peak = max((float(np.abs(sum_CS).max()) for sum_CS in _sums(tracks, rate, layout, block)), default=0.0)
            gain = np.float32(1 / max(1.0, peak))
    with _opened(sounds) as tracks:
        silence_CS = np.zeros((_CHANNELS[layout], block), np.float32)
        added = (gain * sum_CS for sum_CS in _sums(tracks, rate, layout, block))
        yield Mix(rate, layout, chain(added, repeat(silence_CS)))


_Track = tuple[Heard, InputContainer, AudioStream]


@contextmanager
def _opened(sounds: Sequence[Heard]) -> Iterator[Sequence[_Track]]:
    with ExitStack() as stack:
        yield [(sound, *stack.enter_context(opened(sound.file))) for sound in sounds]


def _layout(track: AudioStream) -> str:
    return _LAYOUTS.get(track.codec_context.channels, _OTHER_LAYOUT)


def _sums(tracks: Sequence[_Track], rate: int, layout: str, block: int) -> Iterator[NDArray[np.float32]]:
    """The sounds added, block by block, until the last has ended."""
    nothing = np.zeros((_CHANNELS[layout], block), np.float32)
    for parts in zip_longest(*(_blocks(_samples(track, rate, layout), block) for track in tracks), fillvalue=nothing):
        total_CS: NDArray[np.float32] = np.sum(parts, axis=0, dtype=np.float32)
        yield total_CS


def _samples(track: _Track, rate: int, layout: str) -> Iterator[NDArray[np.float32]]:
    """A sound's pieces [C, S] from the video's beginning on, no more of them than are to be heard."""
    sound, container, stream = track
    # One channel becomes two equal ones: a resampler would make each quieter, as for a voice between two loudspeakers.
    doubled = _layout(stream) == "mono" and layout == "stereo"
    resampler = av.AudioResampler(format="fltp", layout="mono" if doubled else layout, rate=rate)
    left, late = round(sound.length_s * rate), None
    for piece in resampled(decoded(container, stream), resampler):
        samples_CS: NDArray[np.float32] = piece.to_ndarray().astype(np.float32, copy=False)
        if late is None:
            late = 0 if sound.begins_s is None else round((_time(piece) - sound.begins_s) * rate)
            for start in range(0, min(late, left), rate):
                yield np.zeros((_CHANNELS[layout], min(rate, late - start, left - start)), np.float32)
            left -= max(late, 0)
        dropped = min(max(-late, 0), samples_CS.shape[1])
        late += dropped
        kept_CS = samples_CS[:, dropped : dropped + max(left, 0)]
        left -= kept_CS.shape[1]
        yield np.repeat(kept_CS, 2, axis=0) if doubled else kept_CS
        if left <= 0:
            return


def _time(piece: av.AudioFrame) -> float:
    """When a piece begins in its file's time."""
    return 0.0 if piece.pts is None or piece.time_base is None else float(piece.pts * piece.time_base)


def _blocks(parts: Iterator[NDArray[np.float32]], block: int) -> Iterator[NDArray[np.float32]]:
    """The same samples in pieces of one length, the last filled up with silence."""
    held_CS: NDArray[np.float32] | None = None
    for part_CS in parts:
        held_CS = part_CS if held_CS is None else np.concatenate([held_CS, part_CS], axis=1)
        while held_CS.shape[1] >= block:
            yield held_CS[:, :block]
            held_CS = held_CS[:, block:]
    if held_CS is not None and held_CS.shape[1]:
        yield np.pad(held_CS, ((0, 0), (0, block - held_CS.shape[1])))
