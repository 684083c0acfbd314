"""The last frames of a source video, as an extension continues them."""

from __future__ import annotations

import numpy as np


def resize(frame_YXC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest neighbour to a size, the aspect not kept, as in the original: pixel i comes from ⌊i · old / new⌋.

    The products are taken in fp32, as PyTorch's nearest interpolation takes them.
    """
    rows, columns = (
        np.minimum((np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))).astype(np.int64), old - 1)
        for old, new in zip(frame_YXC.shape[:2], (height, width), strict=True)
    )
    resized: np.ndarray = frame_YXC[rows[:, None], columns[None, :]]
    return resized
