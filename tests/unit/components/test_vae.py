import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.image_processor import VaeImageProcessor
from torch.utils._python_dispatch import TorchDispatchMode

from components.checkpoints import read_config
from components.errors import CheckpointMismatch
from components.vae import LatentScale, Vae
from components.values import Latents


@pytest.fixture(scope="module")
def library(root):
    return AutoencoderKLWan.from_pretrained(root / "vae").eval()


def latents(frames: int, seed: int = 0) -> Latents:
    return Latents(torch.randn((1, 16, frames, 4, 6), generator=torch.Generator().manual_seed(seed)))


def whole(library, scale, value: Latents) -> torch.Tensor:
    """The library's decoding of a clip at once, in [0, 1]."""
    with torch.no_grad():
        sample = library.decode(scale.denormalise(value.video_BCTHW)).sample
    return VaeImageProcessor.denormalize(sample)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_streaming_equals_the_whole_decode_bit_for_bit(vae, library, frames):
    chunks = list(vae.decode_float(latents(frames)))
    assert [chunk.shape[2] for chunk in chunks] == [1] + [4] * (frames - 1)
    assert torch.equal(torch.cat(chunks, dim=2), whole(library, vae.scale, latents(frames)))


def test_levels_are_rounded_as_the_image_processor_does(vae, library):
    got_FYXC = np.concatenate(list(vae.decode(latents(3))))
    pixels_FYXC = VaeImageProcessor.pt_to_numpy(whole(library, vae.scale, latents(3))[0].transpose(0, 1))
    images = VaeImageProcessor.numpy_to_pil(pixels_FYXC)
    assert got_FYXC.dtype == np.uint8
    assert np.array_equal(got_FYXC, np.stack([np.asarray(image) for image in images]))


def test_memory_does_not_grow_with_the_clip(vae, library):
    def largest(run, frames):
        with LargestTensor() as record:
            run(latents(frames))
        return record.numel

    def stream(value):
        for _ in vae.decode(value):
            pass

    assert largest(stream, 12) == largest(stream, 3)
    assert largest(lambda value: whole(library, vae.scale, value), 12) > largest(stream, 12)  # the test can tell


def test_interleaved_decodes_do_not_disturb_each_other(vae):
    alone = [list(vae.decode(latents(3, seed))) for seed in (0, 1)]
    together = list(zip(vae.decode(latents(3, 0)), vae.decode(latents(3, 1)), strict=True))
    for first, second, (one, other) in zip(*alone, together, strict=True):
        assert np.array_equal(first, one)
        assert np.array_equal(second, other)


def test_consumer_of_a_decode_keeps_its_gradients(vae):
    for _ in vae.decode(latents(2)):
        assert torch.is_grad_enabled()


def test_encoding_a_clip_equals_the_library(vae, library):
    video_BCFYX = torch.rand((1, 3, 9, 32, 48), generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, logvar = vae.encode(video_BCFYX)
    with torch.no_grad():
        posterior = library.encode(video_BCFYX).latent_dist
    torch.testing.assert_close(mean, posterior.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(logvar, posterior.logvar, rtol=0, atol=1e-6)


def test_references_are_encoded_each_alone(vae):
    images_KCYX = torch.rand((3, 3, 32, 48), generator=torch.Generator().manual_seed(2)) * 2 - 1
    together = vae.encode_references(images_KCYX)
    assert together.mean_KCHW.shape == together.logvar_KCHW.shape == (3, 16, 4, 6)
    for index in range(3):
        alone = vae.encode_references(images_KCYX[index : index + 1])
        assert torch.equal(alone.mean_KCHW[0], together.mean_KCHW[index])
        assert torch.equal(alone.logvar_KCHW[0], together.logvar_KCHW[index])


@pytest.mark.parametrize("shape", [(1, 3, 4, 32, 48), (1, 3, 5, 30, 48), (1, 3, 0, 32, 48)])
def test_clips_of_other_shapes_are_refused(vae, shape):
    with pytest.raises(ValueError, match="not 4k"):
        vae.encode(torch.zeros(shape))


def test_scale_needs_the_configuration_only(root, vae, tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_bytes((root / "vae" / "config.json").read_bytes())
    scale = LatentScale.load(tmp_path)
    assert scale == vae.scale
    assert scale.mean[0] == -0.7571
    x = torch.randn(1, 16, 2, 3, 3)
    torch.testing.assert_close(scale.denormalise(scale.normalise(x)), x)
    torch.testing.assert_close(scale.normalise(x)[0, 5, 0, 0, 0], (x[0, 5, 0, 0, 0] - 0.9653) / 1.7708)


def test_another_vae_generation_is_refused(root, cpu, tmp_path):
    config = read_config(root / "vae" / "config.json") | {"is_residual": True}
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(str(config).replace("'", '"').replace("True", "true"))
    with pytest.raises(CheckpointMismatch):
        Vae.load(tmp_path, cpu)
