"""Videos that are made chunk after chunk: how long each chunk of a request is, and where it lies on the timeline.

Chunks are the *rolls* of an extension (`cluster.plans`), the *windows* of a talking portrait (`cluster.windows`), or
the one clip that is all. Those of diffusion forcing are in `cluster.forcing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.forcing import OVERLAP_FRAMES, ForcingChunk, forcing_chunks, iterations
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
    match MODELS[request.model].graph:
        case "shot":
            return shot_roll(request.duration_s).prefix_frames
        case "df":
            return OVERLAP_FRAMES
    return EXTENSION_PREFIX


def forced(request: Request) -> tuple[ForcingChunk, ...]:
    """The chunks of a request for diffusion forcing; the first has number 1."""
    return forcing_chunks(
        request.resolution,
        request.duration_s,
        block=request.forcing.causal_block_size,
        image=bool(request.images),
        video=request.video is not None,
    )


def ends(request: Request, chunk: int) -> tuple[int, int]:
    """Latent frames that are known at the beginning of a chunk of diffusion forcing, and behind its end."""
    chunks = forced(request)
    return chunks[chunk - 1].known, int(len(request.images) > 1 and chunk == len(chunks))


def source_frames(request: Request) -> int:
    """Frames of the source that stand before what continues it; 0 where only the new part is asked for."""
    if MODELS[request.model].graph == "df":
        return request.frames - sum(chunk.kept_frames for chunk in forced(request))
    return request.frames - extension_frames(request.duration_s)


def denoise_steps(request: Request, chunk: int) -> int:
    """How many steps a chunk's denoising takes."""
    if MODELS[request.model].graph != "df":
        return request.steps
    forcing, (_, held) = request.forcing, ends(request, chunk)
    return iterations(
        forced(request)[chunk - 1],
        request.steps,
        lag=forcing.ar_step,
        block=forcing.causal_block_size,
        held=held,
    )


def decoded_latents(request: Request, chunk: int) -> int:
    """Latent frames that a chunk's decode goes through, those of its prefix included."""
    match MODELS[request.model].graph:
        case "extend":
            return extension_rolls(request.duration_s)[chunk - 1].decoded_latents
        case "avatar":
            return LATENT_FRAMES
        case "df":
            return forced(request)[chunk - 1].latents
    return latent_frames(request.frames)


def new_latents(request: Request, chunk: int) -> int:
    """Latent frames of a chunk's denoising run; those of a roll's prefix are not part of it."""
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
        case "df":
            if before := source_frames(request):
                parts.append((0, 0, 0, before))
            for index, made_of in enumerate(forced(request), start=1):
                added = made_of.latents - made_of.known
                parts.append((index, added, made_of.dropped_frames, made_of.kept_frames))
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
