import json

import pytest
import torch
from diffusers import WanTransformer3DModel

from components.checkpoints import fingerprint, read_config
from components.device import Placement
from components.dit import REFERENCE_SLOTS, ReferenceDiT
from components.errors import CheckpointMismatch, Unsupported

BF16 = Placement(torch.device("cpu"), torch.bfloat16)


def inputs(frames: int = 3):
    generator = torch.Generator().manual_seed(4)
    return (
        torch.randn((1, 16, frames, 4, 6), generator=generator),
        torch.randn((1, 16, REFERENCE_SLOTS, 4, 6), generator=generator),
        torch.tensor([727]),
        torch.randn((1, 40, 32), generator=generator),
    )


def test_is_the_librarys_model_with_references_behind_the_video(root, dit):
    video, references, timestep, context = inputs()
    model = WanTransformer3DModel.from_pretrained(root / "transformer").eval()
    with torch.no_grad():
        expected = model(torch.cat([video, references], dim=2), timestep, context, return_dict=False)[0]
    got = dit.forward(video, references, timestep, context)
    assert got.shape == video.shape
    assert torch.equal(got, expected[:, :, :3])


def test_zero_references_take_part(dit):
    video, references, timestep, context = inputs()
    got = dit.forward(video, torch.zeros_like(references), timestep, context)
    fewer = dit.forward(video, references[:, :, :0], timestep, context)
    assert not torch.allclose(got, fewer, atol=1e-3)


def test_bf16_stays_close_to_fp32(root, dit):
    low = ReferenceDiT.load(root, BF16).forward(*inputs())
    high = dit.forward(*inputs())
    assert low.dtype == torch.float32
    assert float((low - high).norm() / high.norm()) < 0.02
    assert float(torch.nn.functional.cosine_similarity(low.flatten(), high.flatten(), dim=0)) > 0.9995


def test_bf16_blocks_keep_an_fp32_modulation(root):
    dit, seen = ReferenceDiT.load(root, BF16), {}
    model = dit._model

    def record(module, args, kwargs, output):
        temb, modulation, text, _ = output
        seen.update(temb=temb.dtype, modulation=modulation.dtype, text=text.dtype)

    model.condition_embedder.register_forward_hook(record, with_kwargs=True)
    dit.forward(*inputs())
    assert seen == {"temb": torch.float32, "modulation": torch.float32, "text": torch.bfloat16}
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes["blocks.0.attn1.to_q.weight"] == dtypes["patch_embedding.weight"] == torch.bfloat16
    assert dtypes["blocks.0.scale_shift_table"] == dtypes["blocks.1.norm2.weight"] == torch.float32
    assert model.rope.freqs_cos.dtype == torch.float32


def test_library_keeps_no_more_in_fp32_than_we_do(root):
    theirs = WanTransformer3DModel.from_pretrained(root / "transformer", torch_dtype=torch.bfloat16)
    ours = dict(ReferenceDiT.load(root, BF16)._model.named_parameters())
    kept = {name for name, parameter in theirs.named_parameters() if parameter.dtype == torch.float32}
    assert kept
    assert all(ours[name].dtype == torch.float32 for name in kept)


def test_clip_beyond_the_rope_table_is_refused(root, cpu, tmp_path):
    folder = tmp_path / "transformer"
    folder.mkdir()
    config = read_config(root / "transformer" / "config.json") | {"rope_max_seq_len": 8}
    (folder / "config.json").write_text(json.dumps(config))
    weights = "diffusion_pytorch_model.safetensors"
    (folder / weights).symlink_to(root / "transformer" / weights)
    dit = ReferenceDiT.load(tmp_path, cpu)
    assert dit.forward(*inputs(4)).shape[2] == 4
    with pytest.raises(Unsupported, match="ends at 8 per axis"):
        dit.forward(*inputs(5))


def test_class_name_and_foreign_options_do_not_matter(root, cpu, dit, tmp_path):
    folder = tmp_path / "transformer"
    folder.mkdir()
    config = read_config(root / "transformer" / "config.json")
    config |= {"_class_name": "SomeForksTransformer", "window_size": [-1, -1]}
    (folder / "config.json").write_text(json.dumps(config))
    weights = "diffusion_pytorch_model.safetensors"
    (folder / weights).symlink_to(root / "transformer" / weights)
    assert torch.equal(ReferenceDiT.load(tmp_path, cpu).forward(*inputs()), dit.forward(*inputs()))


def test_model_with_an_image_branch_is_refused(root, cpu, tmp_path):
    (tmp_path / "transformer").mkdir()
    config = read_config(root / "transformer" / "config.json") | {"image_dim": 1280}
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointMismatch, match="no reference-to-video DiT"):
        ReferenceDiT.load(tmp_path, cpu)


def test_unusable_attention_is_refused_before_weights_are_read(tmp_path, cpu):
    with pytest.raises(Unsupported, match="'flash'"):
        ReferenceDiT.load(tmp_path, cpu, attention="flash")


def test_carries_the_fingerprint_and_sizes(root, dit):
    assert dit.weights == fingerprint(root / "transformer")
    assert (dit.channels, dit.text_dim) == (16, 32)
