"""Videos that are made chunk after chunk: how long each chunk of a request is, and where it lies on the timeline.

Chunks are the *rolls* of an extension (`cluster.plans`), the *windows* of a talking portrait (`cluster.windows`), or
the one clip that is all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.plans import EXTENSION_PREFIX, extension_frames, extension_rolls, latent_frames, shot_roll
from cluster.records import Request
from cluster.registry import MODELS
from cluster.windows import LATENT_FRAMES, windows


@dataclass(frozen=True, slots=True)
class Piece:
    """What one chunk adds to the video. Frames are pixel frames."""

    chunk: int
    latents: int  # new latent frames that are denoised; 0 where nothing is
    skipped: int  # decoded frames before the first that is kept
    frames: int  # kept, in a row
    first_frame: int  # of the video
    first_segment: int  # a segment is a second, or the rest of a chunk


def prefix_frames(request: Request) -> int:
    """Pixel frames that a request's first chunk continues."""
    if MODELS[request.model].graph == "shot":
        return shot_roll(request.duration_s).prefix_frames
    return EXTENSION_PREFIX


def source_frames(request: Request) -> int:
    """Frames of the source that stand before an extension; 0 where only the new part is asked for."""
    return request.frames - extension_frames(request.duration_s)


def decoded_latents(request: Request, chunk: int) -> int:
    """Latent frames that a chunk's decode goes through, those of its prefix included."""
    match MODELS[request.model].graph:
        case "extend":
            return extension_rolls(request.duration_s)[chunk - 1].decoded_latents
        case "avatar":
            return LATENT_FRAMES
    return latent_frames(request.frames)


def new_latents(request: Request, chunk: int) -> int:
    """Latent frames that a chunk's denoising makes, those of its prefix not included."""
    if MODELS[request.model].graph == "extend":
        return extension_rolls(request.duration_s)[chunk - 1].new_latents
    return decoded_latents(request, chunk)


def pieces(request: Request) -> Sequence[Piece]:
    """What each chunk of a request adds to its video, in order."""
    parts: list[tuple[int, int, int, int]] = []  # chunk, latents, skipped, frames
    match MODELS[request.model].graph:
        case "extend":
            if before := source_frames(request):
                parts.append((0, 0, 0, before))
            for index, roll in enumerate(extension_rolls(request.duration_s), start=1):
                parts.append((index, roll.new_latents, roll.dropped_frames, roll.kept_frames))
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
