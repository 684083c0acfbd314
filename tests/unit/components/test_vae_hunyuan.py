import json
import shutil

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from components.errors import CheckpointMismatch
from components.vae_hunyuan import HunyuanVae
from components.values import Latents
from tests.unit.components.hunyuan_pipelines import library_vae
from tests.unit.components.test_vae import LargestTensor


@pytest.fixture(scope="module")
def library(v1_t2v_root):
    return library_vae(v1_t2v_root)


def latents(frames: int, height: int = 4, width: int = 6, seed: int = 0) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    return Latents(torch.randn((1, 16, frames, height, width), generator=generator))


def whole(library, value: Latents) -> torch.Tensor:
    """The library's decoding of a clip at once, in [0, 1]."""
    with torch.no_grad():
        sample = library.decode(value.video_BCTHW / library.config.scaling_factor).sample
    return VaeImageProcessor.denormalize(sample)


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 6, 7, 8, 10, 13])
def test_streaming_equals_the_librarys_temporal_tiling_bit_for_bit(v1_vae, library, frames):
    chunks = list(v1_vae.decode_float(latents(frames)))
    assert [chunk.shape[2] for chunk in chunks] == [1] + [4] * (frames - 1)
    assert torch.equal(torch.cat(chunks, dim=2), whole(library, latents(frames)))


def test_large_pictures_are_tiled_in_space_as_by_the_library(v1_vae, library):
    value = latents(5, height=4, width=34)  # 272 pixels wide
    got = torch.cat(list(v1_vae.decode_float(value)), dim=2)
    assert torch.equal(got, whole(library, value))


def test_levels_are_rounded_as_the_image_processor_does(v1_vae, library):
    got_FYXC = np.concatenate(list(v1_vae.decode(latents(3))))
    pixels_FYXC = VaeImageProcessor.pt_to_numpy(whole(library, latents(3))[0].transpose(0, 1))
    images = VaeImageProcessor.numpy_to_pil(pixels_FYXC)
    assert np.array_equal(got_FYXC, np.stack([np.asarray(image) for image in images]))


def test_memory_does_not_grow_with_the_clip(v1_vae, library):
    def largest(run, frames):
        with LargestTensor() as record:
            run(latents(frames))
        return record.numel

    def stream(value):
        for _ in v1_vae.decode(value):
            pass

    assert largest(stream, 19) == largest(stream, 7)
    assert largest(lambda value: whole(library, value), 61) > largest(stream, 61)  # the test can tell


def test_consumer_of_a_decode_keeps_its_gradients(v1_vae):
    for _ in v1_vae.decode(latents(6)):
        assert torch.is_grad_enabled()


def test_a_first_frame_is_encoded_as_by_the_library(v1_vae, library):
    image_CYX = torch.rand((3, 32, 272), generator=torch.Generator().manual_seed(1)) * 2 - 1
    first = v1_vae.encode_first(image_CYX)
    with torch.no_grad():
        posterior = library.encode(image_CYX[None, :, None]).latent_dist
    scale = library.config.scaling_factor
    assert torch.equal(first.mean_BCHW, posterior.mean[:, :, 0] * scale)
    assert torch.equal(first.std_BCHW, posterior.std[:, :, 0] * scale)
    assert first.mean_BCHW.shape == (1, 16, 4, 34)


def test_another_vae_is_refused(v1_t2v_root, cpu, tmp_path):
    shutil.copytree(v1_t2v_root / "vae", tmp_path / "vae")
    file = tmp_path / "vae" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "temporal_compression_ratio": 8}))
    with pytest.raises(CheckpointMismatch, match=r"compresses by \(8, 8\)"):
        HunyuanVae.load(tmp_path, cpu)
