"""Chat models by transformers and by vLLM: deterministic, strict, and equal to each other."""

import importlib.util
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.errors import CheckpointMismatch
from components.prompt import Extender, Sampling, messages
from components.writer_transformers import TransformersWriter, _Draw, read_chat

PROMPTS = ("a red ball", "@ball rolls", "two men talk at a small table", "雪 falls outside")
GREEDY, DRAWN = Sampling(max_tokens=40), Sampling(max_tokens=40, temperature=0.8)


def never(ids) -> bool:
    return False


@pytest.fixture(scope="module")
def tokenizer(extender_root):
    return AutoTokenizer.from_pretrained(extender_root)


@pytest.fixture(scope="module")
def writer(extender_root, cpu):
    return TransformersWriter.load(extender_root, cpu)


@pytest.fixture(scope="module")
def questions(tokenizer):
    chats = [tokenizer.apply_chat_template(messages("text_to_video", p, 0), tokenize=False) for p in PROMPTS]
    return [tokenizer(chat, add_special_tokens=False).input_ids for chat in chats]


def test_the_likeliest_tokens_are_those_of_the_models_own_logits(extender_root, writer, questions):
    model = AutoModelForCausalLM.from_pretrained(extender_root, dtype=torch.float32)
    ids = list(questions[0])
    made = writer.write(ids, GREEDY, 0, never)
    assert len(made) == 40
    with torch.no_grad():
        logits_BLV = model(torch.tensor([ids + made])).logits
    assert logits_BLV[0, len(ids) - 1 : -1].argmax(-1).tolist() == made


def test_draws_follow_the_seed_whatever_else_runs(writer, questions):
    alone = [writer.write(ids, DRAWN, 7, never) for ids in questions]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda ids: writer.write(ids, DRAWN, 7, never), questions)) == alone
    assert writer.write(questions[0], DRAWN, 8, never) != alone[0]


def test_draws_have_the_models_probabilities():
    """First tokens of many seeds against softmax(logits / T), by total variation."""
    logits_BV, count = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0]]), 4000
    expected_V = torch.softmax(logits_BV[0] / 0.8, -1)
    drawn = [int(_Draw(0.8, seed)(torch.zeros(1, 0), logits_BV).argmax()) for seed in range(count)]
    seen_V = torch.bincount(torch.tensor(drawn), minlength=5) / count
    assert (seen_V - expected_V).abs().sum() / 2 < 0.03


def test_it_ends_when_told_to(writer, questions):
    assert len(writer.write(questions[0], GREEDY, 0, lambda ids: len(ids) >= 5)) == 5


def test_weights_that_do_not_fit_are_refused(extender_root, tmp_path, cpu):
    folder = shutil.copytree(extender_root, tmp_path / "broken")
    state = load_file(folder / "model.safetensors")
    state["model.layers.9.mlp.up_proj.weight"] = state["model.layers.0.mlp.up_proj.weight"].clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointMismatch, match="unexpected_keys"):
        TransformersWriter.load(folder, cpu)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointMismatch, match="no language model"):
        TransformersWriter.load(folder, cpu)


def test_a_model_that_was_not_tuned_for_chats_is_refused(extender_root, tmp_path):
    assert read_chat(extender_root)[1] == 8192
    folder = shutil.copytree(extender_root, tmp_path / "base")
    options = json.loads((folder / "tokenizer_config.json").read_text())
    del options["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    with pytest.raises(CheckpointMismatch, match="no chat template"):
        read_chat(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointMismatch, match=r"tokenizer\.json is missing"):
        read_chat(folder)


def test_a_model_without_an_end_of_turn_is_refused(extender_root, tmp_path, cpu):
    folder = shutil.copytree(extender_root, tmp_path / "endless")
    (folder / "generation_config.json").write_text(json.dumps({"pad_token_id": 0}))
    with pytest.raises(CheckpointMismatch, match="no eos_token_id"):
        TransformersWriter.load(folder, cpu)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; `make install-vllm` does")
@pytest.mark.filterwarnings("default")
@pytest.mark.timeout(600)
def test_vllm_says_the_same_as_transformers(extender_root, writer, tokenizer, questions, cpu):
    from components.writer_vllm import VllmWriter

    engine = VllmWriter.load(extender_root, cpu, window=8192)
    try:
        alone = [writer.write(ids, GREEDY, 0, never) for ids in questions]
        with ThreadPoolExecutor(4) as pool:  # batched by the engine
            assert list(pool.map(lambda ids: engine.write(ids, GREEDY, 0, never), questions)) == alone
        assert engine.write(questions[0], DRAWN, 7, never) == engine.write(questions[0], DRAWN, 7, never)
        for prompt in PROMPTS:
            asked = messages("reference_to_video", prompt, 2)
            answers = {Extender(tokenizer, one, GREEDY, 8192).answer(asked, 0) for one in (writer, engine)}
            assert len(answers) == 1
        assert engine.ailment is None
    finally:
        engine.close()
