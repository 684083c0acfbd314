"""Keeps a chain of windows at the colours of its source image.

Each frame's mean and deviation in every channel of CIE L*a*b* (D65, 2°) are made those of the source image (Reinhard et
al. 2001, "Color transfer between images"). Only a frame's own pixels matter, so frames may come in chunks of any size.

Shape letters: C = 3, F frames, Y/X pixel height/width.
"""

from __future__ import annotations

import torch

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_TO_RGB = (
    (3.2404813432005266, -1.5371515162713185, -0.4985363261688878),
    (-0.9692549499965682, 1.8759900014898907, 0.0415559265582928),
    (0.0556466391351772, -0.2040413383665112, 1.0573110696453443),
)
_WHITE = (0.95047, 1.0, 1.08883)
_LINEAR_BELOW = 0.008856  # of XYZ over white; beneath it the cube root is replaced by a line
_SLOPE, _OFFSET = 7.787, 4 / 29
_LINEAR_BELOW_ROOT = 0.2068966


class ColourMatch:
    """Matches frames to one image."""

    def __init__(self, source_CYX: torch.Tensor) -> None:
        """`source_CYX` is fp32 in [-1, 1], of any size."""
        self._mean_CFYX, self._std_CFYX = _statistics(_to_lab(_to_unit(source_CYX[:, None])))

    @torch.no_grad()
    def match(self, frames_CFYX: torch.Tensor) -> torch.Tensor:
        """fp32 in [-1, 1] in and out, on any device. A frame of one colour takes on the source's mean."""
        lab_CFYX = _to_lab(_to_unit(frames_CFYX))
        mean_CFYX, std_CFYX = _statistics(lab_CFYX)
        scale_CFYX = torch.where(std_CFYX > 0, self._std_CFYX.to(lab_CFYX.device) / std_CFYX, 0.0)
        matched_CFYX = (lab_CFYX - mean_CFYX) * scale_CFYX + self._mean_CFYX.to(lab_CFYX.device)
        return _to_rgb(matched_CFYX).clamp(0, 1) * 2 - 1


def _to_unit(frames_CFYX: torch.Tensor) -> torch.Tensor:
    return ((frames_CFYX.float() + 1) / 2).clamp(0, 1)


def _statistics(lab_CFYX: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of every channel of every frame, [3, F, 1, 1]."""
    std_CFYX, mean_CFYX = torch.std_mean(lab_CFYX, dim=(2, 3), correction=0, keepdim=True)
    return mean_CFYX, std_CFYX


def _to_lab(rgb_CFYX: torch.Tensor) -> torch.Tensor:
    linear = torch.where(rgb_CFYX > 0.04045, ((rgb_CFYX + 0.055) / 1.055).pow(2.4), rgb_CFYX / 12.92)
    xyz = _mix(_TO_XYZ, linear) / _white(linear)
    root = torch.where(xyz > _LINEAR_BELOW, xyz.clamp(min=_LINEAR_BELOW).pow(1 / 3), _SLOPE * xyz + _OFFSET)
    x, y, z = root.unbind(0)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _to_rgb(lab_CFYX: torch.Tensor) -> torch.Tensor:
    lightness, a, b = lab_CFYX.unbind(0)
    y = (lightness + 16) / 116
    root = torch.stack([a / 500 + y, y, (y - b / 200).clamp(min=0)])
    xyz = torch.where(root > _LINEAR_BELOW_ROOT, root.pow(3), (root - _OFFSET) / _SLOPE) * _white(root)
    linear = _mix(_TO_RGB, xyz)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308).pow(1 / 2.4) - 0.055, 12.92 * linear)


def _mix(matrix: tuple[tuple[float, ...], ...], channels_CFYX: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(matrix, device=channels_CFYX.device)
    return torch.einsum("dc,cfyx->dfyx", weights, channels_CFYX)


def _white(like_CFYX: torch.Tensor) -> torch.Tensor:
    return torch.tensor(_WHITE, device=like_CFYX.device)[:, None, None, None]


def to_levels(frames_CFYX: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to 8 bits, to the level below, as the original does for avatars."""
    return ((frames_CFYX + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
