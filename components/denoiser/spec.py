"""The numbers of one run."""

from __future__ import annotations

from dataclasses import dataclass

from components.vae import STRIDE_S

_SIDE = 16  # pixels per token: VAE stride × patch


@dataclass(frozen=True, slots=True)
class DenoiseSpec:
    """What every family needs; one that needs more adds fields in a subclass. Sizes are the video's, in pixels.

    `latent_frames` are the frames to be made, without those of a condition.

    Raises:
        ValueError: a size or count is out of range.
    """

    height: int
    width: int
    latent_frames: int
    steps: int
    seed: int
    flow_shift: float = 5.0
    guidance: float = 1.0
    guidance_image: float = 1.0

    def __post_init__(self) -> None:
        if self.height < _SIDE or self.width < _SIDE or self.height % _SIDE or self.width % _SIDE:
            raise ValueError(f"height and width must be multiples of {_SIDE}, not {self.height} × {self.width}")
        if self.latent_frames < 1 or self.steps < 1:
            raise ValueError("latent_frames and steps must be at least 1")

    @property
    def guided(self) -> bool:
        return self.guidance > 1

    @property
    def latent_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height // STRIDE_S, self.width // STRIDE_S
