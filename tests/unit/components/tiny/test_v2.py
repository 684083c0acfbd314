import hashlib
import shutil

import pytest
import torch

from components import tiny, vision
from components.checkpoints.verify import verify
from components.denoiser import ForcingTask, ImageTask, TextTask
from components.dit.v2 import ClipDiT
from components.errors import CheckpointMismatch
from components.text import TextEncoder
from components.vae import LatentScale, Vae
from components.values import Pixels
from components.vision import VisionEncoder

TASKS = {"t2v": TextTask, "i2v": ImageTask, "df": ForcingTask}


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v2")
    for kind in TASKS:
        for name in (f"tiny-{kind}", f"tiny-{kind}-diffusers"):
            tiny.BY_NAME[name](folder / name)
    return folder


def digests(root):
    files = (file for file in sorted(root.rglob("*")) if file.is_file())
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("name", ["tiny-i2v", "tiny-i2v-diffusers", "tiny-df"])
def test_the_same_bytes_every_time_and_others_for_another_seed(releases, tmp_path, name):
    for folder, seed in (("again", 0), ("other", 1)):
        tiny.BY_NAME[name](tmp_path / folder, seed=seed)
    assert digests(tmp_path / "again") == digests(releases / name)
    assert digests(tmp_path / "other") != digests(releases / name)


@pytest.mark.parametrize("kind", TASKS)
def test_both_layouts_hold_the_same_model(releases, cpu, kind):
    original, library = releases / f"tiny-{kind}", releases / f"tiny-{kind}-diffusers"
    states = [TASKS[kind].load(root, cpu).model.state_dict() for root in (original, library)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert LatentScale.load(original) == LatentScale.load(library)
    prompts = [TextEncoder.load(root, cpu).encode("a dog", "smoke").prompt_BLD for root in (original, library)]
    assert torch.allclose(*prompts, atol=0.1)  # the original one is in bf16
    assert Vae.load(original, cpu).scale == Vae.load(library, cpu).scale


def test_both_layouts_see_an_image_alike(releases, cpu):
    pixels = Pixels(torch.rand((3, 1, 32, 48), generator=torch.Generator().manual_seed(1)) * 2 - 1)
    rows = [VisionEncoder.load(releases / f"tiny-i2v{end}", cpu).encode(pixels) for end in ("", "-diffusers")]
    assert rows[0].tokens_BID.shape == (1, 257, 160)
    assert torch.allclose(rows[0].tokens_BID, rows[1].tokens_BID, atol=0.02)  # the original one is in fp16


@pytest.mark.parametrize("kind", TASKS)
def test_they_are_verified_whole_and_a_damaged_part_is_named(releases, tmp_path, kind):
    image = " image-to-video" if kind == "i2v" else ""
    for name, layout in ((f"tiny-{kind}", ""), (f"tiny-{kind}-diffusers", " (diffusers)")):
        report = verify(releases / name)
        assert (report.layout, report.whole) == (f"SkyReels V2{image}{layout}", True)
        assert len(report.parts) == (5 if image else 4)
        broken = tmp_path / name
        shutil.copytree(releases / name, broken)
        next(broken.rglob("diffusion_pytorch_model-00001-of-00002.safetensors")).unlink()
        assert [part.name for part in verify(broken).parts if part.problem] == [
            "transformer" if layout else "config.json"
        ]


def test_the_vision_tower_of_the_original_file_is_verified(releases, tmp_path):
    shutil.copytree(releases / "tiny-i2v", tmp_path / "x")
    (tmp_path / "x" / vision.FILE).write_bytes(b"nothing")
    assert [part.name for part in verify(tmp_path / "x").parts if part.problem] == [vision.FILE]


def test_a_checkpoint_of_the_other_kind_is_refused(releases, cpu):
    with pytest.raises(CheckpointMismatch, match="of image-to-video, not of text-to-video"):
        TextTask(ClipDiT.load(releases / "tiny-i2v", cpu))
    with pytest.raises(CheckpointMismatch, match="unexpected"):
        shutil.copytree(releases / "tiny-df", releases / "untold")
        config = releases / "untold" / "config.json"
        config.write_text(config.read_text().replace('"inject_sample_info": true', '"inject_sample_info": false'))
        ForcingTask.load(releases / "untold", cpu)


RELEASED = {  # parameters of the released DiTs, as counted from the original modules
    "t2v-14b": (dict(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40), 14_288_491_584),
    "i2v-14b": (
        dict(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, model_type="i2v", in_dim=36),
        16_394_878_784,
    ),
    "df-1.3b": (dict(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, inject_sample_info=True), None),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes(name):
    from components.dit.v2 import on_meta_of

    sizes, parameters = RELEASED[name]
    base = {"model_type": "t2v", "in_dim": 16, "out_dim": 16, "text_dim": 4096, "freq_dim": 256, "eps": 1e-6}
    model = on_meta_of(base | sizes, name, original=True)
    count = sum(tensor.numel() for tensor in model.parameters())
    assert model.config.attention_head_dim == 128
    if parameters is None:
        width = sizes["dim"]
        told = 2 * width + (width + 1) * width + (width + 1) * 6 * width
        plain = on_meta_of(base | sizes | {"inject_sample_info": False}, name, original=True)
        assert count - told == sum(tensor.numel() for tensor in plain.parameters()) == 1_418_996_800
    else:
        assert count == parameters
