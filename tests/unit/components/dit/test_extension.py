import json
import shutil

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from safetensors.torch import load_file, save_file

from components.device import Placement
from components.dit import ExtensionDiT, wan
from components.dit.extension import ROPE_POSITIONS, SHOT_POSITION, TimedRope, on_meta
from components.errors import CheckpointMismatch, Unsupported

BF16 = Placement(torch.device("cpu"), torch.bfloat16)
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", params=[False, True], ids=["single", "shot"])
def shot(request):
    return request.param


@pytest.fixture(scope="module")
def dit(extension_root, cpu, shot):
    return ExtensionDiT.load(extension_root, cpu, shot=shot)


def inputs(made=5, given=3):
    generator = torch.Generator().manual_seed(4)
    return (
        torch.randn((1, 16, made, 4, 6), generator=generator),
        torch.randn((1, 16, given, 4, 6), generator=generator),
        727,
        torch.randn((1, 40, 32), generator=generator),
    )


def test_equals_the_librarys_timestep_per_token(extension_root, dit, shot):
    folder = extension_root / ("shot_transformer" if shot else "transformer")
    model = on_meta(folder).to_empty(device="cpu").eval()
    stored = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    model.load_state_dict({name: stored[wan.original_name(name)] for name in model.state_dict()})
    model.condition_embedder.timesteps_proj = wan.PreciseTimesteps(256)
    model.rope = TimedRope(24, (1, 2, 2))
    made, given, timestep, context = inputs()
    frames, times = torch.cat([given, made], dim=2), [0] * 3 + [timestep] * 5
    model.rope.times = range(8)
    if shot:
        frames, times = torch.cat([made, given], dim=2), times[::-1]
        model.rope.times = [0, 1, 2, 3, 4, 1024, 1025, 1026]
    by_token = torch.tensor(times).repeat_interleave(2 * 3)[None]
    with torch.no_grad():
        (expected,) = model(frames, by_token, context, return_dict=False)
    got = dit.forward(made, given, timestep, context)
    torch.testing.assert_close(got, expected[:, :, :5] if shot else expected[:, :, 3:], rtol=0, atol=2e-6)


def test_rows_are_modulated_by_frame_in_fp32(extension_root, shot):
    dit, seen = ExtensionDiT.load(extension_root, BF16, shot=shot), {}

    def record(_block, args, output):
        seen.update(rows=args[0], context=args[1], modulation=args[2], output=output)

    dit.model.blocks[1].register_forward_hook(record)
    dit.forward(*inputs())
    assert (seen["modulation"].shape, seen["modulation"].dtype) == ((8, 6, 96), torch.float32)
    assert (seen["rows"].shape, seen["rows"].dtype) == ((8, 6, 96), torch.bfloat16)
    assert seen["context"].dtype == torch.bfloat16
    assert dit.model.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16


def test_bf16_stays_close_to_fp32(extension_root, dit, shot):
    low, high = ExtensionDiT.load(extension_root, BF16, shot=shot).forward(*inputs()), dit.forward(*inputs())
    assert low.dtype == torch.float32
    assert float((low - high).norm() / high.norm()) < 0.02
    assert float(torch.nn.functional.cosine_similarity(low.flatten(), high.flatten(), dim=0)) > 0.9995


def test_forwards_of_several_sizes_may_be_interleaved(dit):
    first, second = inputs(), inputs(made=2, given=1)
    alone = dit.forward(*first)
    dit.forward(*second)
    assert torch.equal(dit.forward(*first), alone)


def test_the_rope_is_the_librarys_at_any_positions():
    theirs, ours = WanRotaryPosEmbed(24, (1, 2, 2), ROPE_POSITIONS), TimedRope(24, (1, 2, 2))
    latents = torch.zeros(1, 16, 4, 6, 8)
    ours.times = range(4)
    assert all(torch.equal(a, b) for a, b in zip(ours(latents), theirs(latents), strict=True))
    ours.times = [0, 1, SHOT_POSITION, SHOT_POSITION + 1]
    far = theirs(torch.zeros(1, 16, SHOT_POSITION + 2, 6, 8))
    tokens = 3 * 4
    for got, expected in zip(ours(latents), far, strict=True):
        assert torch.equal(got[:, : 2 * tokens], expected[:, : 2 * tokens])
        assert torch.equal(got[:, 2 * tokens :], expected[:, SHOT_POSITION * tokens :])


def test_a_picture_beyond_the_rope_table_is_refused(dit):
    with pytest.raises(Unsupported, match="2049 positions"):
        dit.forward(torch.zeros(1, 16, 1, 2, 4098), torch.zeros(1, 16, 1, 2, 4098), 1, torch.zeros(1, 1, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.head.bias"), r"missing 'head\.head\.bias'"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected 'extra'"),
        (
            lambda state: state.update({"blocks.1.modulation": torch.zeros(1, 6, 5)}),
            r"'blocks\.1\.modulation' of shape \(1, 6, 5\)",
        ),
        (
            lambda state: state.update({"text_embedding.0.bias": torch.zeros(96, dtype=torch.int32)}),
            r"'text_embedding\.0\.bias' of dtype I32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_their_stored_names(extension_root, cpu, tmp_path, change, message):
    shutil.copytree(extension_root / "transformer", tmp_path / "transformer")
    file = tmp_path / "transformer" / WEIGHTS
    state = load_file(file)
    change(state)
    save_file(state, file)
    with pytest.raises(CheckpointMismatch, match=message):
        ExtensionDiT.load(tmp_path, cpu, shot=False)


def test_a_missing_shard_is_refused(extension_root, cpu, tmp_path):
    shutil.copytree(extension_root / "shot_transformer", tmp_path / "shot_transformer")
    (tmp_path / "shot_transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointMismatch, match="00002-of-00002"):
        ExtensionDiT.load(tmp_path, cpu, shot=True)


@pytest.mark.parametrize("change", [{"model_type": "i2v"}, {"dim": 97}, {"num_layers": None}, {"eps": "x"}])
def test_another_configuration_is_refused(extension_root, cpu, tmp_path, change):
    folder = tmp_path / "transformer"
    shutil.copytree(extension_root / "transformer", folder)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointMismatch, match=r"config\.json"):
        ExtensionDiT.load(tmp_path, cpu, shot=False)
