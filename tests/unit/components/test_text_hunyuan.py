import json
import shutil

import pytest
import torch
from diffusers import HunyuanVideoPipeline
from transformers import LlamaModel

from components.device import Placement
from components.errors import CheckpointMismatch
from components.text_hunyuan import FRAME_RATE_PREFIX, TEXT_ROWS, HunyuanTextEncoder, with_frame_rate
from tests.unit.components.hunyuan_pipelines import pipeline

PROMPTS = ["FPS-24, a woman in a red coat", "FPS-24, " + "she walks {slowly} — by the sea; 北京 " * 40]


@pytest.fixture(scope="module")
def pipe(v1_t2v_root):
    return pipeline(HunyuanVideoPipeline, v1_t2v_root)


@pytest.mark.parametrize("prompt", PROMPTS, ids=["short", "cut"])
def test_equals_the_librarys_pipeline_without_its_padding(v1_text, pipe, prompt):
    context = v1_text.encode(prompt, None)
    with torch.no_grad():
        rows_BLD, pooled_BE, mask_BL = pipe.encode_prompt(prompt)
    valid = int(mask_BL.sum())
    assert context.prompt_BLD.shape == (1, valid, rows_BLD.shape[-1])
    assert (valid == TEXT_ROWS) == (prompt is PROMPTS[1])
    torch.testing.assert_close(context.prompt_BLD, rows_BLD[:, :valid], rtol=0, atol=1e-5)
    torch.testing.assert_close(context.pooled_BE, pooled_BE, rtol=0, atol=1e-5)


def test_the_frame_rate_is_put_before_a_prompt_once_and_never_before_the_negative_one(v1_text):
    plain, written = v1_text.encode("a cat", "a dog"), v1_text.encode(FRAME_RATE_PREFIX + "a cat", "a dog")
    assert torch.equal(plain.prompt_BLD, written.prompt_BLD)
    assert torch.equal(plain.pooled_BE, written.pooled_BE)
    assert with_frame_rate("a dog") == "FPS-24, a dog"
    assert plain.negative_BLD.shape[1] < v1_text.encode("a dog", None).prompt_BLD.shape[1]


def test_negative_prompt_is_absent_empty_or_text(v1_text):
    absent, empty, some = (v1_text.encode("a cat", negative) for negative in (None, "", "smoke"))
    assert absent.negative_BLD.shape == (1, 0, absent.prompt_BLD.shape[2])
    assert absent.negative_pooled_BE.shape == absent.pooled_BE.shape
    assert empty.negative_BLD.shape[1] == 1  # the end of the turn
    assert some.negative_BLD.shape[1] > 1
    assert not torch.equal(empty.negative_pooled_BE, some.negative_pooled_BE)


def test_the_layers_behind_the_one_that_is_read_are_not_kept(v1_t2v_root, v1_text):
    whole = LlamaModel.from_pretrained(v1_t2v_root / "text_encoder")
    held = v1_text._language._model
    assert len(held.layers) == len(whole.layers) - 2
    ids = [3, 1, 4, 1, 5]
    with torch.no_grad():
        expected_BLD = whole(torch.tensor([ids]), output_hidden_states=True).hidden_states[-3]
    torch.testing.assert_close(v1_text._language.rows(ids), expected_BLD, rtol=0, atol=1e-6)


def test_bf16_stays_close_to_fp32(v1_t2v_root, v1_text):
    low = HunyuanTextEncoder.load(v1_t2v_root, Placement(torch.device("cpu"), torch.bfloat16)).encode(PROMPTS[0], None)
    high = v1_text.encode(PROMPTS[0], None)
    assert low.prompt_BLD.dtype == low.pooled_BE.dtype == torch.bfloat16
    assert float((low.prompt_BLD.float() - high.prompt_BLD).norm() / high.prompt_BLD.norm()) < 0.05


@pytest.mark.parametrize("name", ["tokenizer/tokenizer.json", "tokenizer_2/merges.txt", "text_encoder_2/config.json"])
def test_an_incomplete_release_is_refused(v1_t2v_root, cpu, tmp_path, name):
    root = tmp_path / "release"
    shutil.copytree(v1_t2v_root, root)
    (root / name).unlink()
    with pytest.raises(CheckpointMismatch, match="is missing"):
        HunyuanTextEncoder.load(root, cpu)


def test_a_model_without_layers_to_skip_is_refused(v1_t2v_root, cpu, tmp_path):
    root = tmp_path / "release"
    shutil.copytree(v1_t2v_root, root)
    file = root / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": 2}))
    with pytest.raises(CheckpointMismatch, match="has 2 layers"):
        HunyuanTextEncoder.load(root, cpu)
