"""Which attention kernel the DiTs use: a table in order of preference, tried before it is trusted.

A backend can be missing (package, kernel download), refuse the machine when it is set, or fail only when it runs.
So each candidate computes one small attention, and its result is compared with plain PyTorch's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import WanTransformer3DModel

from components.device import Placement
from components.errors import Unsupported

AUTO = "auto"
_REFERENCE = "native"  # PyTorch's own; what the others are compared with
BACKENDS: Mapping[str, tuple[str, ...]] = {
    # Names are diffusers'. Fastest first: FlashAttention 3 (Hopper, from the kernel hub), FlashAttention 2, cuDNN.
    "cuda": ("_flash_3_hub", "flash", "_native_cudnn", _REFERENCE),
    "cpu": (_REFERENCE,),
}
_HEAD_DIM = 128  # the released DiTs'
_TOLERANCE = 0.05  # relative L2; bf16 kernels agree to about 0.01, a wrong kernel is off by order one


def pick(name: str, device: str | torch.device) -> str:
    """The backend to use: the first of the table that works, or the named one.

    Args:
        name: "auto" or a diffusers backend name.
        device: the DiT's device.

    Raises:
        Unsupported: the named backend, or every one of the table, does not work here.
    """
    placement = Placement.of(device)
    if name != AUTO:
        if reason := _why_not(name, placement):
            raise Unsupported(
                f"Attention backend {name!r} does not work on {placement.device}; choose {AUTO!r} ({reason})."
            )
        return name
    reasons = []
    for candidate in BACKENDS.get(placement.device.type, (_REFERENCE,)):
        reason = _why_not(candidate, placement)
        if reason is None:
            return candidate
        reasons.append(f"{candidate}: {reason}")
    raise Unsupported(f"No attention backend works on {placement.device} ({'; '.join(reasons)}).")


@torch.no_grad()
def _why_not(name: str, placement: Placement) -> str | None:
    """Runs one attention block; None when its result is right, else the reason in a line."""
    if name == _REFERENCE:
        return None
    generator = torch.Generator().manual_seed(0)
    probe = WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=_HEAD_DIM, text_dim=16, freq_dim=16, ffn_dim=16, num_layers=1
    )
    attention = probe.blocks[0].attn1.to(placement.device, placement.dtype)
    hidden_BLD = torch.randn((1, 256, _HEAD_DIM), generator=generator).to(placement.device, placement.dtype)
    try:
        probe.set_attention_backend(_REFERENCE)
        expected_BLD = attention(hidden_BLD).float()
        probe.set_attention_backend(name)
        got_BLD = attention(hidden_BLD).float()
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError, OSError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    finally:
        probe.set_attention_backend(_REFERENCE)  # the library remembers the last one set as its default
    difference = float((got_BLD - expected_BLD).norm() / expected_BLD.norm())
    return None if difference < _TOLERANCE else f"it computes a wrong result, relative error {difference:.2g}"
