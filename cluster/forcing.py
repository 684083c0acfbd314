"""How a video of diffusion forcing is cut into chunks. Integers only, exact by construction.

A chunk has as many frames as the model was trained on. The next one begins with the last 17 frames of what there is,
made latents again, and adds to them. A video that begins with nothing, or with an image, and fits one chunk has
24 d + 1 frames; a longer one 24 d + 17, which is 257, 377, 737 and 1457 frames for 10, 15, 30 and 60 s. A video that is
continued is continued by 24 d frames.

Where latent frames go in blocks, a chunk is whole blocks: the video may come out somewhat longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import InvalidRequest
from cluster.plans import VAE_STRIDE_T, clip_frames, latent_frames

FPS = 24
OVERLAP_FRAMES = 17
"""Frames that a chunk begins with, of the chunk or the video before it."""
OVERLAP_LATENTS = latent_frames(OVERLAP_FRAMES)
CHUNK_FRAMES: Mapping[str, int] = {"64P": 41, "540P": 97, "720P": 121}
"""By resolution family."""
BLOCKS = tuple(size for size in range(1, OVERLAP_LATENTS + 1) if OVERLAP_LATENTS % size == 0)
"""How many latent frames a block may have: what a chunk begins with is whole blocks."""
MAX_LAG = 10
MAX_KNOWN_TIMESTEP = 60
KNOWN_TIMESTEP = 20
"""With how much noise the model sees known frames, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class ForcingChunk:
    """One chunk. Latent frames, `known` ones at its beginning included."""

    latents: int
    known: int
    dropped_frames: int  # pixel frames at its beginning that the video has already

    @property
    def decoded_frames(self) -> int:
        return VAE_STRIDE_T * (self.latents - 1) + 1

    @property
    def kept_frames(self) -> int:
        return self.decoded_frames - self.dropped_frames


def forcing_chunks(
    family: str, duration_s: int, *, block: int = 1, image: bool = False, video: bool = False
) -> tuple[ForcingChunk, ...]:
    """The chunks of a video.

    Args:
        family: of resolution.
        duration_s: what is to be made.
        block: latent frames of a block.
        image: the video begins with an image.
        video: it continues a video.

    Raises:
        InvalidRequest: the duration is below 1 s, or blocks have no such size.
    """
    if duration_s < 1:
        raise InvalidRequest(f"A video lasts at least 1 s, not {duration_s}.", param="seconds")
    if block not in BLOCKS:
        raise InvalidRequest(
            f"causal_block_size must be {' or '.join(map(str, BLOCKS))}; got {block}.", param="causal_block_size"
        )
    longest = latent_frames(CHUNK_FRAMES[family]) // block * block
    whole = clip_frames(duration_s, FPS)
    latents = latent_frames(whole if whole <= CHUNK_FRAMES[family] else FPS * duration_s + OVERLAP_FRAMES)
    if video:
        latents = FPS * duration_s // VAE_STRIDE_T + OVERLAP_LATENTS
    left = -(-latents // block) * block
    first = min(left, longest)
    chunks = [ForcingChunk(first, OVERLAP_LATENTS, OVERLAP_FRAMES) if video else ForcingChunk(first, int(image), 0)]
    left -= first
    while left > 0:
        new = min(left, longest - OVERLAP_LATENTS)
        chunks.append(ForcingChunk(new + OVERLAP_LATENTS, OVERLAP_LATENTS, OVERLAP_FRAMES))
        left -= new
    return tuple(chunks)


def iterations(chunk: ForcingChunk, steps: int, *, lag: int = 0, block: int = 1, held: int = 0) -> int:
    """How often the model is asked for a chunk: blocks that are not known start `lag` iterations after each other, or
    when the one before is done.

    `held` are known latent frames behind the chunk, which are counted in although nothing happens to them.
    """
    blocks = (chunk.latents + held) // block - chunk.known // block
    return steps + (blocks - 1) * min(lag, steps)
