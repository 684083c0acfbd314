"""Reference images as the VAE takes them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

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
    pixels_YXC = np.asarray(_fit(image, height, width), dtype=np.float32)
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
