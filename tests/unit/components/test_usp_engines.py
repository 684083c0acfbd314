import sys

import pytest
import torch

from components.errors import Unsupported
from components.usp.engines import pick_engine

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def refusal(engine, device):
    with pytest.raises(Unsupported) as caught:
        pick_engine(engine, device, torch.bfloat16, head_width=128)
    return str(caught.value)


@pytest.mark.parametrize(
    "engine", ["xfuser:FLASH_4", "xfuser:CUDNN", "yunchang:FA3", "yunchang:FA", "xfuser", "yunchang"]
)
def test_without_a_gpu_every_engine_is_refused(engine):
    assert refusal(engine, CPU) == f"Attention engine '{engine}' runs on CUDA devices only; use none on cpu."


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("engine", ["yunchang:TORCH_MATH", "yunchang:TORCH_CUDNN", "xfuser:SDPA", "xfuser:SDPA_MATH"])
def test_engines_that_compute_something_else_are_refused_everywhere(engine, device):
    assert f"'{engine}' cannot share a sequence because it " in refusal(engine, device)


@pytest.mark.parametrize(
    ("engine", "module"),
    [("xfuser:FLASH_4", "xfuser.core.distributed.attention_backend"), ("yunchang:FA3", "yunchang.kernels")],
)
def test_without_the_package_it_says_what_to_install(monkeypatch, engine, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    assert f"'{engine}' cannot be loaded; install skyreels-serve[usp]" in refusal(engine, CUDA)


@pytest.mark.parametrize("engine", ["flash", "yunchang:", "other:FA", ""])
def test_names_that_are_none_are_refused(engine):
    assert "does not exist; use 'xfuser:FLASH_4', 'yunchang:FA3'" in refusal(engine, CPU)
