import numpy as np
import pytest
from numpy.typing import NDArray


def moving_picture(frames: int, height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """uint8 [F, Y, X, 3]: smooth gradients that drift, every frame another."""
    f, y, x = np.mgrid[:frames, :height, :width].astype(np.float64)
    red = 128 + 100 * np.sin(x / 15 + f / 5)
    green = 128 + 100 * np.sin(y / 11 - f / 7)
    blue = 128 + 100 * np.sin((x + y) / 23 + f / 9)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


@pytest.fixture
def clip() -> NDArray[np.uint8]:
    """Five seconds and one frame at 24 fps."""
    return moving_picture(121)
