import numpy as np
import pytest
import torch
from PIL import Image

from components.image import cover, cover_mask, letterbox

RED = (255, 0, 0)


def test_wide_image_is_centred_on_white():
    got_CYX = letterbox(Image.new("RGB", (40, 10), RED), 32, 48)
    assert got_CYX.shape == (3, 32, 48)
    assert got_CYX.dtype == torch.float32
    red = (got_CYX[0] == 1) & (got_CYX[1] == -1) & (got_CYX[2] == -1)
    assert red[10:22].all()  # 48 × 12, centred
    assert (got_CYX[:, :10] == 1).all()
    assert (got_CYX[:, 22:] == 1).all()


def test_tall_image_is_centred_on_white():
    got_CYX = letterbox(Image.new("RGB", (10, 40), RED), 32, 48)
    assert (got_CYX[1, :, 20:28] == -1).all()  # 8 × 32
    assert (got_CYX[:, :, :20] == 1).all()
    assert (got_CYX[:, :, 28:] == 1).all()


def test_inner_size_follows_the_ratio_of_sides():
    # int(48 · 21 / 47) × 48; one common scale, min(32 / 21, 48 / 47), would leave a white row: 21 × 47.
    got_CYX = letterbox(Image.new("RGB", (21, 47), RED), 48, 32)
    assert (got_CYX[1] == -1).sum() == 21 * 48


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1)])
def test_extreme_ratios_keep_a_pixel(size):
    assert (letterbox(Image.new("RGB", size, RED), 32, 48)[1] < 1).any()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_any_mode_is_taken(mode):
    got_CYX = letterbox(Image.new(mode, (16, 16)), 16, 16)
    assert got_CYX.shape == (3, 16, 16)
    assert got_CYX.abs().max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (48, 32), (64, 64)])
def test_a_cover_fills_any_size_without_bars(size):
    image = Image.new("RGB", size, (200, 10, 30))
    covered = cover(image, 32, 48)
    assert covered.shape == (3, 32, 48)
    assert (covered - torch.tensor([200, 10, 30]).view(3, 1, 1) / 127.5 + 1).abs().max() < 1e-5


def test_a_cover_keeps_the_middle_and_a_mask_follows_it():
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 24:72] = 255
    assert cover(Image.fromarray(pixels), 32, 48).min() == 1
    mask = torch.from_numpy(pixels[:, :, 0])
    assert cover_mask(mask, 32, 48).min() > 0
    assert cover_mask(torch.zeros(5, 9), 32, 48).shape == (32, 48)
