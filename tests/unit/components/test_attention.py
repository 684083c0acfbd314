import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from components import attention
from components.attention import pick
from components.errors import Unsupported


def test_auto_on_cpu_is_pytorchs_own():
    assert pick("auto", "cpu") == "native"


@pytest.mark.parametrize("name", ["native", "_native_math", "_native_flash"])
def test_a_working_backend_is_taken_as_named(name):
    assert pick(name, "cpu") == name


@pytest.mark.parametrize(
    "name",
    [
        "flash",  # refused when it is set: the package is not here
        "_native_cudnn",  # accepted when it is set, fails when it runs
        "no-such-backend",
    ],
)
def test_a_backend_that_cannot_work_is_refused_in_one_line(name):
    with pytest.raises(Unsupported, match=f"'{name}' does not work on cpu; choose 'auto'") as caught:
        pick(name, "cpu")
    assert "\n" not in str(caught.value)


def test_auto_passes_over_what_does_not_work(monkeypatch):
    monkeypatch.setattr(attention, "BACKENDS", {"cpu": ("flash", "_native_cudnn", "_native_math", "native")})
    assert pick("auto", "cpu") == "_native_math"


def test_auto_without_any_working_backend_names_all(monkeypatch):
    monkeypatch.setattr(attention, "BACKENDS", {"cpu": ("flash", "_native_cudnn")})
    with pytest.raises(Unsupported, match=r"flash: .*_native_cudnn: "):
        pick("auto", "cpu")


def test_a_refused_backend_does_not_become_the_default():
    with pytest.raises(Unsupported):
        pick("_native_cudnn", "cpu")
    query_BLHD = torch.ones(1, 4, 1, 8)
    assert torch.equal(dispatch_attention_fn(query_BLHD, query_BLHD, query_BLHD), query_BLHD)
