"""Clients' images as the models take them."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

_WHITE = (255, 255, 255)


def letterbox(image: Image.Image, height: int, width: int) -> torch.Tensor:
    """Fits an image into a size without cropping or stretching it: Lanczos, centred on white.

    Args:
        image: upright, any mode; of transparency the colours beneath count.
        height: of the result, pixels.
        width: of the result, pixels.

    Returns:
        [3, Y, X] fp32 in [-1, 1].
    """
    return _to_tensor(_fit(image, height, width))


def cover(image: Image.Image, height: int, width: int) -> torch.Tensor:
    """Fills a size with an image without stretching it: bilinear, what sticks out is cut off evenly.

    Args:
        image: upright, any mode; of transparency the colours beneath count.
        height: of the result, pixels.
        width: of the result, pixels.

    Returns:
        [3, Y, X] fp32 in [-1, 1].
    """
    inner, (top, left) = _covering((image.height, image.width), (height, width))
    filled = image.convert("RGB").resize(inner[::-1], Image.Resampling.BILINEAR)
    return _to_tensor(filled.crop((left, top, left + width, top + height)))


def cover_mask(mask_YX: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The same for a mask, by the nearest pixel: [Y, X] of any size and dtype → [height, width] fp32."""
    inner, (top, left) = _covering((int(mask_YX.shape[0]), int(mask_YX.shape[1])), (height, width))
    filled_BCYX = interpolate(mask_YX[None, None].float(), size=inner, mode="nearest")
    return filled_BCYX[0, 0, top : top + height, left : left + width].contiguous()


def _covering(size: tuple[int, int], target: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) that covers the target, and the (top, left) corner of what is kept of it."""
    scale = max(target[0] / size[0], target[1] / size[1])
    inner = math.ceil(scale * size[0]), math.ceil(scale * size[1])
    return inner, (round((inner[0] - target[0]) / 2), round((inner[1] - target[1]) / 2))


def _to_tensor(image: Image.Image) -> torch.Tensor:
    pixels_YXC = np.asarray(image, dtype=np.float32)
    return torch.from_numpy(pixels_YXC).permute(2, 0, 1).div(255).mul(2).sub(1).contiguous()


def _fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """The same in 8-bit RGB.

    The inner size follows from the ratio of the sides, truncated, in this order of operations: 21 × 47 into 32 × 48
    must give 21 × 48, which one common scale factor does not.
    """
    ratio = image.width / image.height
    wide = ratio > width / height
    inner = (width, max(1, int(width / ratio))) if wide else (max(1, int(height * ratio)), height)
    canvas = Image.new("RGB", (width, height), _WHITE)
    corner = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    canvas.paste(image.convert("RGB").resize(inner, Image.Resampling.LANCZOS), corner)
    return canvas
