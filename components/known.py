"""What the models know of their frames beforehand; of a whole clip, encoded without ever holding all of it.

The condition is a clip of the pass's length: the frames to begin with, zeros (which is grey), and several copies
of the key frame at the end; beside it a mask that is 1 on the known frames. The VAE takes it in chunks of four frames,
which are made one at a time. A latent frame's mask has four channels: of the first frame its own mask four times, of a
later one those of its four pixel frames.

Shape letters as in `components.values`; f is the pixel frames of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from components.vae import STRIDE_S, STRIDE_T, Vae
from components.values import EndsCondition, KnownFrames, Pixels

KEY_COPIES = 5
MASK_CHANNELS = STRIDE_T


def encode_known(vae: Vae, first: Pixels, key: Pixels | None, frames: int) -> KnownFrames:
    """The condition of one pass.

    Args:
        vae: of the same release as the DiT.
        first: the frames that the pass begins with, at the video's size: the source image alone, or the 4k + 1 last
            frames of the window before, which then are held fixed.
        key: one frame, which takes the last KEY_COPIES positions; None for none.
        frames: the pass's length, 4n + 1.

    Raises:
        ValueError: the frames do not fit each other, the length or the VAE.
    """
    given_CFYX = first.pixels_CFYX
    _, count, height, width = given_CFYX.shape
    copies = KEY_COPIES if key is not None else 0
    if count < 1 or (count - 1) % STRIDE_T or (frames - 1) % STRIDE_T or count + copies > frames:
        raise ValueError(f"{count} known frames do not fit a pass of {frames}")
    if key is not None and key.pixels_CFYX.shape != (given_CFYX.shape[0], 1, height, width):
        raise ValueError(f"a key frame is one frame of {height} × {width}")
    mean_BCTHW, _ = vae.encode_chunks(_chunks(given_CFYX, key, frames))
    latents_BCTHW = vae.scale.normalise(mean_BCTHW)
    mask_F = torch.zeros(frames)
    mask_F[:count] = 1
    mask_F[frames - copies :] = 1
    mask_CT = torch.cat([mask_F[:1].expand(STRIDE_T), mask_F[1:]]).view(-1, STRIDE_T).T
    size = (height // STRIDE_S, width // STRIDE_S)
    mask_BCTHW = mask_CT[None, :, :, None, None].expand(1, *mask_CT.shape, *size).to(latents_BCTHW)
    held = 0 if count == 1 else (count - 1) // STRIDE_T + 1
    return KnownFrames(
        known_BCTHW=torch.cat([mask_BCTHW, latents_BCTHW], dim=1), motion_BCKHW=latents_BCTHW[:, :, :held].clone()
    )


def encode_ends(vae: Vae, first: Pixels | None, last: Pixels | None, height: int, width: int) -> EndsCondition:
    """What a chunk of diffusion forcing knows: 4k + 1 frames that it begins with and those behind its end; None = none.

    Raises:
        ValueError: a clip has another number of frames, or another size than the video's.
    """

    def latents(known: Pixels | None) -> torch.Tensor:
        if known is None:
            return torch.zeros((1, len(vae.scale.mean), 0, height // STRIDE_S, width // STRIDE_S))
        if known.pixels_CFYX.shape[2:] != (height, width):
            raise ValueError(f"known frames of {tuple(known.pixels_CFYX.shape[2:])} are none of {height} × {width}")
        mean_BCTHW, _ = vae.encode(known.pixels_CFYX[None])
        return vae.scale.normalise(mean_BCTHW)

    return EndsCondition(latents(first), latents(last))


def _chunks(given_CFYX: torch.Tensor, key: Pixels | None, frames: int) -> Iterator[torch.Tensor]:
    """The condition's frames as the VAE takes them: [1, 3, f, Y, X] of 1, then 4, 4, … frames."""
    channels, count, height, width = given_CFYX.shape
    key_from = frames - (KEY_COPIES if key is not None else 0)
    for start in (0, *range(1, frames, STRIDE_T)):
        stop = start + 1 if start == 0 else start + STRIDE_T
        chunk_CFYX = torch.zeros((channels, stop - start, height, width))
        if start < count:
            chunk_CFYX[:, : count - start] = given_CFYX[:, start : min(stop, count)]
        if key is not None and stop > key_from:
            chunk_CFYX[:, max(key_from - start, 0) :] = key.pixels_CFYX
        yield chunk_CFYX[None]
