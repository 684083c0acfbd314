import importlib.util
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from components.device import Placement
from components.errors import Unsupported
from components.llama_vllm import VllmLlama
from components.text_hunyuan import HunyuanTextEncoder

INSTALLED = importlib.util.find_spec("vllm") is not None
PROMPTS = ["a cat", "FPS-24, " + "she walks slowly by the sea " * 60]


def encode(root, prompts):
    """In a process of its own: vLLM binds threads and starts a world."""
    cpu = Placement.of("cpu")
    encoder = HunyuanTextEncoder.with_language(VllmLlama.load(root / "text_encoder", cpu), root, cpu)
    return [{name: tensor.numpy() for name, tensor in encoder.encode(p, "rain").tensors().items()} for p in prompts]


@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed (make install-vllm)")
@pytest.mark.timeout(300)
def test_vllm_gives_the_rows_of_transformers(v1_t2v_root, v1_text):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        answers = pool.submit(encode, v1_t2v_root, PROMPTS).result()
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        for name, expected in v1_text.encode(prompt, "rain").tensors().items():
            torch.testing.assert_close(torch.from_numpy(answer[name]), expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_without_vllm_it_is_refused_in_one_sentence(v1_t2v_root, cpu):
    with pytest.raises(Unsupported, match="run `make install-vllm`, or choose transformers"):
        VllmLlama.load(v1_t2v_root / "text_encoder", cpu)
