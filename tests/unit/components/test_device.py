import pytest
import torch

from components.device import Placement
from components.errors import Unsupported


def test_cpu_computes_in_fp32():
    placement = Placement.of("cpu")
    assert (placement.device.type, placement.dtype) == ("cpu", torch.float32)


def test_gpu_computes_in_bf16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    placement = Placement.of("cuda:1")
    assert (placement.device, placement.dtype) == (torch.device("cuda", 1), torch.bfloat16)


def test_absent_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unsupported, match="no CUDA device; choose 'cpu'"):
        Placement.of("cuda")
