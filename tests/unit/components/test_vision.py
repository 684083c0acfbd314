import pytest
import torch

from components.errors import CheckpointMismatch
from components.values import Pixels
from components.vision import FILE, VisionEncoder, fused, rearranged


def test_tokens_of_a_picture(avatar_root, cpu):
    encoder = VisionEncoder.load(avatar_root, cpu)
    picture = torch.rand((3, 2, 40, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = encoder.encode(Pixels(picture)).tokens_BID
    assert tokens.shape == (1, 257, 160)
    assert torch.equal(encoder.encode(Pixels(picture[:, :1])).tokens_BID, tokens)  # the first frame alone counts
    assert not torch.allclose(encoder.encode(Pixels(picture[:, 1:])).tokens_BID, tokens, atol=1e-2)


def test_fusing_is_the_inverse_of_rearranging(avatar_root):
    state = torch.load(avatar_root / FILE, weights_only=True)
    visual = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}
    head = visual.pop("head")
    again = fused(rearranged({**visual, "head": head}))
    assert set(again) == set(visual)
    assert all(torch.equal(again[name], visual[name]) for name in visual)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.stranger": torch.zeros(1)}, "unexpected 'stranger'"),
        ({"visual.transformer.0.mlp.0.weight": None}, "no CLIP vision tower"),
        ({"visual.pre_norm.weight": None}, "missing 'pre_layrnorm.weight'"),
        ({"textual.more": torch.zeros(1)}, None),
    ],
)
def test_only_the_text_tower_is_left_out(avatar_root, cpu, tmp_path, change, message):
    state = {**torch.load(avatar_root / FILE, weights_only=True), **change}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / FILE)
    if message is None:
        VisionEncoder.load(tmp_path, cpu)
        return
    with pytest.raises(CheckpointMismatch, match=message):
        VisionEncoder.load(tmp_path, cpu)
