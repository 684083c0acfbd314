"""Attention kernels of other packages, for GPUs: xfuser's and yunchang's. Not run on a GPU yet.

Only their kernels are used, never their process groups, which are global and have one layout per process. A name is
"package:KERNEL" with the package's own word for the kernel ("xfuser:FLASH_4", "yunchang:FA3"), or the package alone for
its fastest that works; which of them do depends on what else is installed, so a kernel is tried like every other one
before it is trusted.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from components.errors import Unsupported
from components.usp.kernels import Partial, proven

_KNOWN_WRONG: Mapping[str, str] = {
    "yunchang:TORCH_MATH": "it reports zeros instead of the log-sum-exp",
    "yunchang:TORCH_CUDNN": "it reports zeros instead of the log-sum-exp",
    "yunchang:SPARSE_SAGE": "it reports no log-sum-exp",
    "xfuser:SDPA": "it reports no log-sum-exp",
    "xfuser:SDPA_MATH": "it combines the parts of a ring wrongly",
}


_FASTEST_FIRST: Mapping[str, tuple[str, ...]] = {
    "xfuser": ("FLASH_4", "FLASH_3", "FLASH", "CUDNN"),
    "yunchang": ("FA3", "FA"),
}


def pick_engine(engine: str, device: torch.device, dtype: torch.dtype, head_width: int) -> Partial:
    """The engine's kernel, after it joined two parts correctly.

    Raises:
        Unsupported: it (or every one of the package) does not exist, is not installed, needs a GPU, does not work or
            is wrong here.
    """
    package, _, name = engine.partition(":")
    if engine in _FASTEST_FIRST:
        return _pick_fastest(engine, device, dtype, head_width)
    load = _PACKAGES.get(package)
    if load is None or not name:
        raise Unsupported(
            f"Attention engine {engine!r} does not exist; use 'xfuser:FLASH_4', 'yunchang:FA3' and the like, or none."
        )
    if reason := _KNOWN_WRONG.get(engine):
        raise Unsupported(f"Attention engine {engine!r} cannot share a sequence because {reason}; use another or none.")
    if device.type != "cuda":
        raise Unsupported(f"Attention engine {engine!r} runs on CUDA devices only; use none on {device.type}.")
    try:
        kernel = load(name)
    except (ImportError, NotImplementedError) as error:  # the latter is xfuser's where it finds no device
        reason = str(error).strip().rstrip(".!")
        raise Unsupported(
            f"Attention engine {engine!r} cannot be loaded; install skyreels-serve[usp] and what the kernel itself "
            f"needs, or use no engine ({reason})."
        ) from error
    except (KeyError, AttributeError) as error:
        raise Unsupported(f"Attention engine {engine!r} is not one that {package} has; use another or none.") from error
    return proven(kernel, engine, device, dtype, head_width)


def _pick_fastest(package: str, device: torch.device, dtype: torch.dtype, head_width: int) -> Partial:
    if device.type != "cuda":
        raise Unsupported(f"Attention engine {package!r} runs on CUDA devices only; use none on {device.type}.")
    reasons = []
    for name in _FASTEST_FIRST[package]:
        try:
            return pick_engine(f"{package}:{name}", device, dtype, head_width)
        except Unsupported as error:
            reasons.append(str(error))
    raise Unsupported(f"No kernel of attention engine {package!r} works here; use another or none. {' '.join(reasons)}")


def _yunchang(name: str) -> Partial:
    kernels = importlib.import_module("yunchang.kernels")
    forward = kernels.select_flash_attn_impl(kernels.AttnType[name], stage="fwd-only")

    def kernel(
        query_BNHD: torch.Tensor, key_BMHD: torch.Tensor, value_BMHD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        output_BNHD, logsumexp_BHN = forward(
            query_BNHD,
            key_BMHD,
            value_BMHD,
            dropout_p=0.0,
            softmax_scale=query_BNHD.shape[-1] ** -0.5,
            causal=False,
            window_size=(-1, -1),
            softcap=0.0,
            alibi_slopes=None,
            return_softmax=False,
        )
        return output_BNHD, logsumexp_BHN

    return kernel


def _xfuser(name: str) -> Partial:
    backends = importlib.import_module("xfuser.core.distributed.attention_backend")
    forward: Callable[..., Any] = backends.ATTENTION_FUNCTION_REGISTRY[backends.AttentionBackendType[name]]

    def kernel(
        query_BNHD: torch.Tensor, key_BMHD: torch.Tensor, value_BMHD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        query, key, value = (x.transpose(1, 2).contiguous() for x in (query_BNHD, key_BMHD, value_BMHD))
        output_BHND, logsumexp_BHN = forward(query, key, value, dropout_p=0.0, is_causal=False)
        return output_BHND.transpose(1, 2), logsumexp_BHN

    return kernel


_PACKAGES: Mapping[str, Callable[[str], Partial]] = {"xfuser": _xfuser, "yunchang": _yunchang}
