import shutil

import pytest
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from components.checkpoints.verify import verify
from components.denoiser import HunyuanImageTask, HunyuanTask
from components.errors import CheckpointMismatch
from components.text_hunyuan import HunyuanTextEncoder
from components.tiny import BY_NAME
from components.vae_hunyuan import HunyuanVae
from tests.unit.components.tiny.test_avatar import digests

PARTS = {"config.json", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"}
DIT = ("config.json", "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("name", ["t2v", "i2v"])
def test_the_same_bytes_every_time_and_others_for_another_seed(name, tmp_path, request):
    for folder, seed in (("again", 0), ("other", 1)):
        BY_NAME[f"tiny-v1-{name}"](tmp_path / folder, seed=seed)
    first = digests(request.getfixturevalue(f"v1_{name}_root"))
    assert digests(tmp_path / "again") == first
    assert digests(tmp_path / "other") != first
    assert set(DIT) <= set(first)


def test_every_loader_takes_it(v1_t2v_root, v1_i2v_root, cpu):
    assert HunyuanTask.load(v1_t2v_root, cpu).weights != HunyuanImageTask.load(v1_i2v_root, cpu).weights
    assert HunyuanTextEncoder.load(v1_i2v_root, cpu)
    assert HunyuanVae.load(v1_i2v_root, cpu)


def test_the_models_share_their_encoders(v1_t2v_root, v1_i2v_root):
    one, other = digests(v1_t2v_root), digests(v1_i2v_root)
    assert {name for name in one if one[name] != other[name]} == {*DIT, "tiny.json"}


def test_the_template_has_as_many_tokens_as_the_release_cuts_off(v1_t2v_root):
    tokenizer = Tokenizer.from_file(str(v1_t2v_root / "tokenizer" / "tokenizer.json"))
    head, _ = DEFAULT_PROMPT_TEMPLATE["template"].split("{}")
    assert len(tokenizer.encode(head).ids) == DEFAULT_PROMPT_TEMPLATE["crop_start"]


def test_it_is_verified_whole_in_one_folder_or_in_two(v1_t2v_root, v1_i2v_root, tmp_path):
    dit = tmp_path / "dit"
    dit.mkdir()
    for name in DIT:
        shutil.copy(v1_i2v_root / name, dit)
    for report in (verify(v1_i2v_root), verify(dit, v1_t2v_root)):
        assert (report.layout, report.whole) == ("SkyReels V1", True)
        assert {part.name for part in report.parts} == PARTS
    with pytest.raises(CheckpointMismatch, match="no release of a known layout"):
        verify(dit)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("diffusion_pytorch_model.safetensors", "config.json"),
        ("text_encoder/model.safetensors", "text_encoder"),
        ("text_encoder_2/model.safetensors", "text_encoder_2"),
        ("vae/diffusion_pytorch_model.safetensors", "vae"),
    ],
)
def test_a_key_too_few_is_named_by_its_part(v1_t2v_root, tmp_path, file, part):
    root = tmp_path / "broken"
    shutil.copytree(v1_t2v_root, root)
    state = load_file(root / file)
    name = sorted(state)[0]
    del state[name]
    save_file(state, root / file)
    (problem,) = [found for found in verify(root).parts if found.problem]
    assert problem.name == part
    assert f"missing {name!r}" in problem.problem
