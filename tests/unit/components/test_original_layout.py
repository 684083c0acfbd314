"""Text encoder and VAE in the original layout against the same weights in the library's."""

import shutil

import pytest
import torch

from components.errors import CheckpointMismatch
from components.text import TextEncoder
from components.vae import LatentScale, Vae
from components.values import Latents

T5, VAE = "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth"


def test_the_vae_is_the_same(extension_root, vae, cpu):
    other = Vae.load(extension_root, cpu)
    clip = torch.rand((1, 3, 9, 16, 24), generator=torch.Generator().manual_seed(0)) * 2 - 1
    for got, expected in zip(other.encode(clip), vae.encode(clip), strict=True):
        assert torch.equal(got, expected)
    latents = Latents(torch.randn((1, 16, 2, 2, 3), generator=torch.Generator().manual_seed(0)))
    for got, expected in zip(other.decode_float(latents), vae.decode_float(latents), strict=True):
        assert torch.equal(got, expected)
    assert LatentScale.load(extension_root) == other.scale == vae.scale


def test_the_text_encoder_is_the_same_up_to_its_stored_precision(extension_root, text, cpu):
    got = TextEncoder.load(extension_root, cpu).encode("a woman walks a dog at night", "smoke")
    expected = text.encode("a woman walks a dog at night", "smoke")
    for ours, theirs in zip(got.tensors().values(), expected.tensors().values(), strict=True):
        assert ours.shape == theirs.shape
        assert float((ours - theirs).norm() / theirs.norm()) < 0.02


@pytest.mark.parametrize(("file", "load"), [(T5, TextEncoder.load), (VAE, Vae.load)], ids=["text encoder", "vae"])
@pytest.mark.parametrize("change", ["another", "less", "more", "shape"])
def test_other_weights_are_refused_by_name(extension_root, cpu, tmp_path, file, load, change):
    shutil.copytree(extension_root, tmp_path / "x")
    state = torch.load(tmp_path / "x" / file, weights_only=True)
    name = sorted(state)[0]
    match change:
        case "another":
            state, name = {"a.b.c": torch.zeros(1)}, "does not hold"
        case "less":
            del state[name]
        case "more":
            name = "surplus.weight"
            state[name] = torch.zeros(1)
        case "shape":
            state[name] = state[name][..., None]
    torch.save(state, tmp_path / "x" / file)
    with pytest.raises(CheckpointMismatch, match=name):
        load(tmp_path / "x", cpu)


def test_a_missing_tokenizer_is_refused(extension_root, cpu, tmp_path):
    shutil.copytree(extension_root, tmp_path / "x")
    (tmp_path / "x" / "google" / "umt5-xxl" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointMismatch, match=r"tokenizer\.json is missing"):
        TextEncoder.load(tmp_path / "x", cpu)


def test_a_prefix_is_the_normalised_mean(extension_root, vae):
    frames = torch.randint(0, 256, (9, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, _ = vae.encode(frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1)
    got = vae.encode_prefix(frames).latents_BCTHW
    torch.testing.assert_close(got, vae.scale.normalise(mean), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="4k"):
        vae.encode_prefix(frames[:8])


def test_truncated_levels_are_the_floor_and_others_the_nearest(vae):
    latents = Latents(torch.randn((1, 16, 1, 2, 3), generator=torch.Generator().manual_seed(0)))
    exact = next(vae.decode_float(latents))[0].permute(1, 2, 3, 0) * 255
    assert torch.equal(torch.from_numpy(next(vae.decode(latents, truncate=True))).float(), exact.floor())
    assert torch.equal(torch.from_numpy(next(vae.decode(latents))).float(), exact.round())
