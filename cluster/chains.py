"""Videos that are made chunk after chunk: how many chunks, how long each is, and where it lies on the timeline.

Pure functions of whole numbers; the values are facts of the released models (goldens `plans`).

- *Rolls* extend a video. Each asks for six latent frames per second of its piece, less what earlier rolls made too much
  of; its prefix and its new latents together are rounded up to a multiple of eight.
- A *shot* is one roll whose condition grows with its length.
- *Windows* of a talking portrait are in `cluster.windows`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.plans import VAE_STRIDE_T, latent_frames
from cluster.records import Request
from cluster.registry import MODELS
from cluster.windows import LATENT_FRAMES, windows

PREFIX_FRAMES = 25  # pixel frames of what comes before a roll
PREFIX_LATENTS = latent_frames(PREFIX_FRAMES)
ROLL_S = 5
_LATENTS_PER_S = 6
_LATENTS_UNIT = 8
_SHOT_FRAMES: Mapping[int, int] = {1: 5, 2: 9, 3: 17, 4: 25, 5: 33}  # seconds → pixel frames; a toy may have 1 s


@dataclass(frozen=True, slots=True)
class Piece:
    """What one chunk adds to the video. Frames are pixel frames."""

    chunk: int
    latents: int  # new latent frames that are denoised; 0 where nothing is
    skipped: int  # decoded frames before the first that is kept
    frames: int  # kept, in a row
    first_frame: int  # of the video
    first_segment: int  # a segment is a second, or the rest of a chunk


def rolls(duration_s: int) -> tuple[int, ...]:
    """New latent frames of each roll that extends a video by so many seconds, ≥ 1."""
    made: list[int] = []
    surplus = 0
    for start in range(0, duration_s, ROLL_S):
        wanted = _LATENTS_PER_S * min(ROLL_S, duration_s - start) - surplus
        total = math.ceil((PREFIX_LATENTS + wanted) / _LATENTS_UNIT) * _LATENTS_UNIT
        made.append(total - PREFIX_LATENTS)
        surplus = made[-1] - wanted
    return tuple(made)


def extended_frames(duration_s: int) -> int:
    """Pixel frames that an extension by so many seconds adds."""
    return VAE_STRIDE_T * sum(rolls(duration_s))


def shot_condition_frames(duration_s: int) -> int:
    """Pixel frames of the source that a new shot of so many seconds is conditioned on.

    Raises:
        ValueError: shots have 1 to 5 whole seconds (the released ones 2 to 5).
    """
    if duration_s not in _SHOT_FRAMES:
        raise ValueError(f"a shot has {min(_SHOT_FRAMES)} to {max(_SHOT_FRAMES)} seconds, not {duration_s}")
    return _SHOT_FRAMES[duration_s]


def source_frames(request: Request) -> int:
    """Frames of the source that stand before an extension; 0 where only the new part is asked for."""
    return request.frames - extended_frames(request.duration_s)


def decoded_latents(request: Request, chunk: int) -> int:
    """Latent frames that a chunk's decode goes through, those of its prefix included."""
    match MODELS[request.model].graph:
        case "extend":
            return PREFIX_LATENTS + rolls(request.duration_s)[chunk - 1]
        case "avatar":
            return LATENT_FRAMES
    return latent_frames(request.frames)


def new_latents(request: Request, chunk: int) -> int:
    """Latent frames that a chunk's denoising makes, those of its prefix not included."""
    if MODELS[request.model].graph == "extend":
        return rolls(request.duration_s)[chunk - 1]
    return decoded_latents(request, chunk)


def pieces(request: Request) -> Sequence[Piece]:
    """What each chunk of a request adds to its video, in order."""
    parts: list[tuple[int, int, int, int]] = []  # chunk, latents, skipped, frames
    match MODELS[request.model].graph:
        case "extend":
            if before := source_frames(request):
                parts.append((0, 0, 0, before))
            for index, latents in enumerate(rolls(request.duration_s), start=1):
                parts.append((index, latents, PREFIX_FRAMES, VAE_STRIDE_T * latents))
        case "avatar":
            made = (window for window in windows(request.frames) if window.kept)
            parts = [(window.index, LATENT_FRAMES, window.keep_from, window.kept) for window in made]
        case _:
            parts.append((0, latent_frames(request.frames), 0, request.frames))
    found: list[Piece] = []
    frame = segment = 0
    for chunk, latents, skipped, frames in parts:
        found.append(Piece(chunk, latents, skipped, frames, frame, segment))
        frame += frames
        segment += math.ceil(frames / request.fps)
    return found
