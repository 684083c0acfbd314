import importlib.util
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from components.device import Placement
from components.errors import Unsupported
from components.text import TextEncoder
from components.text_deepspeed import offload, split
from components.text_hunyuan import HunyuanTextEncoder
from tests.unit.components import text_ranks
from tests.unit.components.world import World

INSTALLED = importlib.util.find_spec("deepspeed") is not None


@pytest.fixture
def world():
    with World(2) as world:
        world.run(text_ranks.load_library)
        yield world


@pytest.mark.skipif(not INSTALLED, reason="DeepSpeed is not installed (extra deepspeed)")
@pytest.mark.timeout(300)
def test_shared_and_offloaded_encoders_give_what_plain_ones_give(world, root, v1_t2v_root, cpu):
    for kind, loader, folder in (("umt5", TextEncoder, root), ("llama", HunyuanTextEncoder, v1_t2v_root)):
        plain = loader.load(folder, cpu)
        model = plain._model if kind == "umt5" else plain._language._model
        whole = sum(parameter.numel() for parameter in model.parameters())
        for how in ("split", "offload"):
            answers = world.run(text_ranks.encode, kind, folder, how)
            for values, _ in answers:
                for prompt, got in zip(text_ranks.PROMPTS, values, strict=True):
                    for name, expected in plain.encode(*prompt).tensors().items():
                        torch.testing.assert_close(torch.from_numpy(got[name]), expected, rtol=0, atol=1e-5)
            if how == "split":
                assert min(held for _, held in answers) < whole, "no rank holds less than all"


@pytest.mark.skipif(not INSTALLED, reason="DeepSpeed is not installed (extra deepspeed)")
@pytest.mark.timeout(300)
def test_a_process_alone_offloads_several_encoders(root, v1_t2v_root, cpu):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for kind, loader, folder in (("umt5", TextEncoder, root), ("llama", HunyuanTextEncoder, v1_t2v_root)):
            values, _ = pool.submit(text_ranks.encode, {}, kind, folder, "offload").result()
            for prompt, got in zip(text_ranks.PROMPTS, values, strict=True):
                for name, expected in loader.load(folder, cpu).encode(*prompt).tensors().items():
                    torch.testing.assert_close(torch.from_numpy(got[name]), expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(INSTALLED, reason="DeepSpeed is installed")
@pytest.mark.parametrize("how", [split, offload])
def test_without_deepspeed_it_is_refused_in_one_sentence(root, how):
    with pytest.raises(Unsupported, match=r"needs the package deepspeed; install skyreels-serve\[deepspeed\]"):
        TextEncoder.load(root, Placement.of("cpu"), how)
