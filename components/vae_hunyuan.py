"""HunyuanVideo's VAE, decoded in time tile by tile.

Its group norms look at every frame of what they are given, so a clip cannot be decoded frame by frame with a cache as
the Wan VAE's can. What the library does, and the released models' pipelines with it, is *defined* by tiles: five latent
frames every three are decoded each by itself, and four pixel frames at each seam are blended. The same tiles are made
here, in order, so that memory holds two of them however long the clip is, and the result is the library's bit for bit.
Pictures above 256 pixels are tiled in space too, by the library's own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo

from components.checkpoints import known_arguments, load_strict, read_config
from components.device import VAE_DTYPE, Placement
from components.errors import CheckpointMismatch
from components.vae import STRIDE_S, STRIDE_T, levels
from components.values import FirstFrame, Latents

WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


class HunyuanVae:
    """AutoencoderKLHunyuanVideo in fp32. Stateless between calls; generators may be interleaved."""

    def __init__(self, model: AutoencoderKLHunyuanVideo, placement: Placement) -> None:
        """Adopts a model that is on its device already."""
        model.enable_tiling()
        self._model = model
        self._scale = float(model.config.scaling_factor)
        self._device = placement.device

    @classmethod
    def load(cls, root: Path, placement: Placement) -> Self:
        """From a release's `vae/`. CheckpointMismatch."""
        folder = root / "vae"
        model = on_meta(folder)
        load_strict(model, folder, device=placement.device, dtype_of=lambda _: VAE_DTYPE)
        return cls(model, placement)

    @torch.no_grad()
    def encode_first(self, image_CYX: torch.Tensor) -> FirstFrame:
        """The posterior of a picture as a clip of one frame.

        Args:
            image_CYX: [3, Y, X] in [-1, 1]; sides are multiples of 8.
        """
        video_BCFYX = image_CYX[None, :, None].to(self._device, VAE_DTYPE)
        posterior = self._model.encode(video_BCFYX).latent_dist
        return FirstFrame(posterior.mean[:, :, 0] * self._scale, posterior.std[:, :, 0] * self._scale)

    def decode(self, latents: Latents, *, truncate: bool = False) -> Iterator[np.ndarray]:
        """The clip in 8 bits, one latent frame's pixel frames at a time: uint8 [f, Y, X, 3], f = 1, then 4, 4, …

        Args:
            latents: normalised.
            truncate: to the level below; else to the nearest.
        """
        for frames_BCFYX in self.decode_float(latents):
            yield levels(frames_BCFYX, truncate=truncate)

    def decode_float(self, latents: Latents) -> Iterator[torch.Tensor]:
        """The same as fp32 [1, 3, f, Y, X] in [0, 1]."""
        latents_BCTHW = latents.video_BCTHW.to(self._device, VAE_DTYPE) / self._scale
        for index, tile_BCFYX in enumerate(self._tiles(latents_BCTHW)):
            pixels_BCFYX = (tile_BCFYX / 2 + 0.5).clamp(0, 1)
            if not index:
                yield pixels_BCFYX[:, :, :1]
                pixels_BCFYX = pixels_BCFYX[:, :, 1:]
            if pixels_BCFYX.shape[2]:
                yield from torch.split(pixels_BCFYX, STRIDE_T, dim=2)

    def _tiles(self, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
        """Each tile's new frames, [1, 3, F, Y, X] in [-1, 1]: 4k + 1 of the first, then 4k."""
        model, frames = self._model, latents_BCTHW.shape[2]
        held = model.tile_sample_min_num_frames // STRIDE_T
        if frames <= held:
            yield self._decode_tile(latents_BCTHW)
            return
        stride = model.tile_sample_stride_num_frames
        blended = model.tile_sample_min_num_frames - stride
        before_BCFYX: torch.Tensor | None = None
        # A last tile of one latent frame has no frames but those of the tile before.
        for start in range(0, frames - 1, stride // STRIDE_T):
            tile_BCFYX = self._decode_tile(latents_BCTHW[:, :, start : start + held + 1])
            if before_BCFYX is None:
                yield tile_BCFYX[:, :, : stride + 1]
            else:
                tile_BCFYX = model.blend_t(before_BCFYX, tile_BCFYX[:, :, 1:], blended)
                yield tile_BCFYX[:, :, :stride]
            before_BCFYX = tile_BCFYX

    @torch.no_grad()  # on the tile and not the generator, where it would leak into the consumer's code
    def _decode_tile(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        model = self._model
        if max(latents_BCTHW.shape[3:]) * STRIDE_S > min(model.tile_sample_min_height, model.tile_sample_min_width):
            (tile_BCFYX,) = model.tiled_decode(latents_BCTHW, return_dict=False)
        else:
            tile_BCFYX = model.decoder(model.post_quant_conv(latents_BCTHW))
        result_BCFYX: torch.Tensor = tile_BCFYX
        return result_BCFYX


def on_meta(folder: Path) -> AutoencoderKLHunyuanVideo:
    """The architecture that a folder's configuration describes, without weights. CheckpointMismatch."""
    config = read_config(folder / "config.json")
    strides = (config.get("temporal_compression_ratio", STRIDE_T), config.get("spatial_compression_ratio", STRIDE_S))
    if strides != (STRIDE_T, STRIDE_S):
        raise CheckpointMismatch(f"{folder} compresses by {strides}; HunyuanVideo's VAE has {STRIDE_T} and {STRIDE_S}.")
    with torch.device("meta"):
        return AutoencoderKLHunyuanVideo(**known_arguments(AutoencoderKLHunyuanVideo, config))
