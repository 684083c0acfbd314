"""The Wan 2.1 VAE, streamed in time.

Causal in time: the first frame stands alone, then four pixel frames make one latent frame. The library's encoder and
decoder carry the past in a feature cache (the last two frames before each causal convolution); here each call owns its
cache, so calls do not disturb each other, memory does not grow with the clip and nothing is concatenated twice.

Shape letters as in `components.values`; f is the pixel frames of one chunk: 1, then 4, 4, …
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from components import vae_original
from components.checkpoints import known_arguments, load_strict, read_config
from components.device import VAE_DTYPE, Placement
from components.errors import CheckpointMismatch
from components.values import Condition, Latents, PrefixCondition

STRIDE_T = 4
STRIDE_S = 8


@dataclass(frozen=True, slots=True)
class LatentScale:
    """The per-channel constants that make latents unit normal. Part of the VAE's configuration."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def load(cls, root: Path) -> Self:
        """From a release's `vae/config.json` alone: whoever denoises needs no VAE. CheckpointMismatch.

        The original layout has no configuration; its constants are the library's defaults.
        """
        if (root / vae_original.FILE).is_file():
            with torch.device("meta"):
                return cls.of(AutoencoderKLWan().config)
        return cls.of(read_config(root / "vae" / "config.json"))

    @classmethod
    def of(cls, config: Any) -> Self:
        """From a VAE configuration. CheckpointMismatch."""
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if not mean or not std or len(mean) != len(std):
            raise CheckpointMismatch("The VAE's configuration lacks latents_mean and latents_std of one length.")
        return cls(tuple(map(float, mean)), tuple(map(float, std)))

    def normalise(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """VAE space to DiT space."""
        mean, std = self._like(latents_BCTHW)
        return (latents_BCTHW - mean) / std

    def denormalise(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        """DiT space to VAE space."""
        mean, std = self._like(latents_BCTHW)
        return latents_BCTHW * std + mean

    def _like(self, latents_BCTHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = (
            torch.tensor(row, device=latents_BCTHW.device, dtype=latents_BCTHW.dtype).view(1, -1, 1, 1, 1)
            for row in (self.mean, self.std)
        )
        return mean, std


class Vae:
    """AutoencoderKLWan in fp32. Stateless between calls; generators may be interleaved.

    On GPU the convolutions run as cuDNN chooses (TF32 by default, as in the original), which differs from CPU at 1e-3.
    """

    def __init__(self, model: AutoencoderKLWan, placement: Placement) -> None:
        self.scale = LatentScale.of(model.config)
        self._model = model
        self._device = placement.device
        self._encoder_caches = _count_convolutions(model.encoder)
        self._decoder_caches = _count_convolutions(model.decoder)

    @classmethod
    def load(cls, root: Path, placement: Placement) -> Self:
        """From a release's `vae/`, or `Wan2.1_VAE.pth` in the original layout. CheckpointMismatch."""
        if (file := root / vae_original.FILE).is_file():
            return cls(vae_original.load(file, placement.device), placement)
        folder = root / "vae"
        model = on_meta(folder)
        load_strict(model, folder, device=placement.device, dtype_of=lambda _: VAE_DTYPE)
        return cls(model, placement)

    @property
    def model(self) -> AutoencoderKLWan:
        """The library's model, for whoever arranges how it runs (`components.vae_parallel`)."""
        return self._model

    def encode_references(self, images_KCYX: torch.Tensor) -> Condition:
        """The posterior of each image, encoded alone as a clip of one frame.

        Args:
            images_KCYX: [K, 3, Y, X] in [-1, 1], K ≥ 1; sides are multiples of 8.

        Returns:
            Mean and log-variance [K, 16, H, W] fp32, in VAE space (not normalised).
        """
        posteriors = [self.encode(image_CYX[None, :, None]) for image_CYX in images_KCYX]
        mean_KCTHW = torch.cat([mean for mean, _ in posteriors])
        logvar_KCTHW = torch.cat([logvar for _, logvar in posteriors])
        return Condition(mean_KCHW=mean_KCTHW[:, :, 0], logvar_KCHW=logvar_KCTHW[:, :, 0])

    @torch.no_grad()
    def encode(self, video_BCFYX: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A clip's posterior.

        Args:
            video_BCFYX: [B, 3, 4k + 1, Y, X] in [-1, 1].

        Returns:
            Mean and log-variance [B, 16, k + 1, H, W] fp32, in VAE space.

        Raises:
            ValueError: the frame count is not 4k + 1, or a side is not a multiple of 8.
        """
        _, _, frames, height, width = video_BCFYX.shape
        if frames < 1 or (frames - 1) % STRIDE_T or height % STRIDE_S or width % STRIDE_S:
            raise ValueError(f"a clip of {frames} frames, {height} × {width}, is not 4k + 1 frames with sides of 8n")
        starts = (0, *range(1, frames, STRIDE_T))
        return self.encode_chunks(video_BCFYX[:, :, a:b] for a, b in pairwise((*starts, frames)))

    @torch.no_grad()
    def encode_chunks(self, chunks_BCFYX: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """As `encode`, of a clip that is made while it is encoded: chunks of 1, then 4, 4, … frames."""
        cache: list[Any] = [None] * self._encoder_caches
        moments = [
            self._model.quant_conv(
                self._model.encoder(chunk_BCFYX.to(self._device, VAE_DTYPE), feat_cache=cache, feat_idx=[0])
            )
            for chunk_BCFYX in chunks_BCFYX
        ]
        posterior = DiagonalGaussianDistribution(torch.cat(moments, dim=2))
        return posterior.mean, posterior.logvar

    def encode_prefix(self, frames_FYXC: torch.Tensor) -> PrefixCondition:
        """The frames that a video is continued from: the posterior's mean, normalised.

        Args:
            frames_FYXC: uint8 [4k + 1, Y, X, 3] at the video's size.

        Raises:
            ValueError: as `encode`.
        """
        video_BCFYX = frames_FYXC.permute(3, 0, 1, 2)[None].to(VAE_DTYPE).div(255).mul(2).sub(1)
        mean_BCTHW, _ = self.encode(video_BCFYX)
        return PrefixCondition(latents_BCTHW=self.scale.normalise(mean_BCTHW))

    def decode(self, latents: Latents, *, truncate: bool = False) -> Iterator[np.ndarray]:
        """The clip in 8 bits, chunk by chunk: uint8 [f, Y, X, 3].

        Args:
            latents: normalised.
            truncate: to the level below, as the original does for extensions; else to the nearest.
        """
        for frames_BCFYX in self.decode_float(latents):
            yield levels(frames_BCFYX, truncate=truncate)

    def decode_float(self, latents: Latents) -> Iterator[torch.Tensor]:
        """The clip chunk by chunk: fp32 [1, 3, f, Y, X] in [0, 1]."""
        latents_BCTHW = latents.video_BCTHW.to(self._device, VAE_DTYPE)
        for chunk_BCFYX in self._chunks(self.scale.denormalise(latents_BCTHW)):
            yield (chunk_BCFYX / 2 + 0.5).clamp(0, 1)

    def _chunks(self, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
        """Latents in VAE space to [B, 3, f, Y, X] in [-1, 1], one chunk per latent frame."""
        cache: list[Any] = [None] * self._decoder_caches
        for index in range(latents_BCTHW.shape[2]):
            yield self._decode_frame(latents_BCTHW[:, :, index : index + 1], cache, first=index == 0)

    @torch.no_grad()  # on the frame and not the generator, where it would leak into the consumer's code
    def _decode_frame(self, latent_BCTHW: torch.Tensor, cache: list[Any], *, first: bool) -> torch.Tensor:
        hidden_BCTHW = self._model.post_quant_conv(latent_BCTHW)
        chunk_BCFYX: torch.Tensor = self._model.decoder(hidden_BCTHW, feat_cache=cache, feat_idx=[0], first_chunk=first)
        return chunk_BCFYX.clamp(-1, 1)


def levels(frames_BCFYX: torch.Tensor, *, truncate: bool = False) -> np.ndarray:
    """Frames [1, 3, F, Y, X] in [0, 1] in 8 bits, [F, Y, X, 3]: to the nearest level, or truncated to the one below."""
    levels_FYXC = frames_BCFYX[0].permute(1, 2, 3, 0).mul(255)
    levels_FYXC = levels_FYXC if truncate else levels_FYXC.round()
    return levels_FYXC.to(torch.uint8).cpu().numpy()


def on_meta(folder: Path) -> AutoencoderKLWan:
    """The architecture that a folder's configuration describes, without weights. CheckpointMismatch."""
    config = read_config(folder / "config.json")
    if config.get("is_residual") or config.get("patch_size"):
        raise CheckpointMismatch(f"{folder} is a Wan 2.2 VAE; these models use the Wan 2.1 one.")
    with torch.device("meta"):
        return AutoencoderKLWan(**known_arguments(AutoencoderKLWan, config))


def _count_convolutions(module: torch.nn.Module) -> int:
    """How many entries the module's feature cache has."""
    return sum(isinstance(child, WanCausalConv3d) for child in module.modules())
