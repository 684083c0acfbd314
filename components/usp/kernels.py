"""Attention over a part of the keys, and how parts become the whole.

Softmax over all keys is the sum of softmaxes over parts, weighted by each part's share of the exponentials (Milakov
and Gimelshein 2018, arXiv:1805.02867). With o the output and L the log-sum-exp of the scores of a part,

    L = log(e^La + e^Lb)        o = o_a + σ(Lb − La) · (o_b − o_a)

A kernel takes part in this only if it reports L. Some that offer it report something else, so a kernel is tried
before it is trusted.

Shape letters: B batch, N queries, M keys, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from components.errors import Unsupported

Partial = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(query_BNHD, key_BMHD, value_BMHD) → (output_BNHD, logsumexp_BHN)."""

_ADVICE = "use a layout with ring 1, or another attention backend"
_TOLERANCE = 0.02  # relative L2; bf16 kernels agree to about 0.01, a wrong log-sum-exp is off by order 0.1


def whole(
    backend: str | None, query_BNHD: torch.Tensor, key_BMHD: torch.Tensor, value_BMHD: torch.Tensor
) -> torch.Tensor:
    """Attention over all keys by a backend of the library's table; None is its default."""
    output_BNHD: torch.Tensor = dispatch_attention_fn(query_BNHD, key_BMHD, value_BMHD, backend=backend)
    return output_BNHD


def merge(
    output_BNHD: torch.Tensor, logsumexp_BHN: torch.Tensor, other_BNHD: torch.Tensor, other_BHN: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Joins two parts, see the module's formula. fp32 in, fp32 out."""
    share_BNH1 = torch.sigmoid(other_BHN - logsumexp_BHN).transpose(1, 2).unsqueeze(-1)
    return output_BNHD + share_BNH1 * (other_BNHD - output_BNHD), torch.logaddexp(logsumexp_BHN, other_BHN)


def pick_partial(backend: str, device: torch.device, dtype: torch.dtype, head_width: int) -> Partial:
    """The backend's kernel with log-sum-exp, after it joined two parts correctly.

    Raises:
        Unsupported: the backend has none, or it does not work, or is wrong, on this device.
    """
    kernel = _PARTIALS.get((device.type, backend))
    if kernel is None:
        raise Unsupported(
            f"Attention backend {backend!r} cannot run in a ring because it has no log-sum-exp on {device.type}; "
            f"{_ADVICE}."
        )
    return proven(kernel, backend, device, dtype, head_width)


@torch.no_grad()
def proven(kernel: Partial, name: str, device: torch.device, dtype: torch.dtype, head_width: int) -> Partial:
    """The kernel, after it joined two parts correctly. Unsupported when it fails or is wrong here."""
    generator = torch.Generator().manual_seed(0)
    query_BNHD, key_BMHD, value_BMHD = (
        torch.randn((1, 160, 2, head_width), generator=generator).to(device, dtype) for _ in range(3)
    )
    expected_BNHD = whole("native", query_BNHD, key_BMHD, value_BMHD).float()
    try:
        first, second = (kernel(query_BNHD, key_BMHD[:, part], value_BMHD[:, part]) for part in _UNEVEN)
        got_BNHD, _ = merge(first[0].float(), first[1].float(), second[0].float(), second[1].float())
    except _FAILURES as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise Unsupported(f"Attention backend {name!r} does not work in a ring here; {_ADVICE} ({reason}).") from error
    difference = float((got_BNHD - expected_BNHD).norm() / expected_BNHD.norm())
    if not difference < _TOLERANCE:
        raise Unsupported(
            f"Attention backend {name!r} joins the parts of a ring wrongly here, relative error {difference:.2g}; "
            f"{_ADVICE}."
        )
    return kernel


_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, ImportError, OSError, AssertionError, NameError)
"""What kernels raise on the wrong machine; the last two are how other packages tell that a third one is missing."""
_UNEVEN = (slice(None, 37), slice(37, None))


def _aten(operator: Callable[..., tuple[torch.Tensor, ...]], *options: object) -> Partial:
    """A kernel of PyTorch that its public attention function calls too, but without the log-sum-exp."""

    def kernel(
        query_BNHD: torch.Tensor, key_BMHD: torch.Tensor, value_BMHD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        query, key, value = (x.transpose(1, 2).contiguous() for x in (query_BNHD, key_BMHD, value_BMHD))
        output_BHND, logsumexp, *_ = operator(query, key, value, *options)
        # Some kernels report [B, H, N, 1], some round N up.
        logsumexp_BHN = logsumexp.flatten(2)[:, :, : query.shape[2]]
        return output_BHND.transpose(1, 2), logsumexp_BHN

    return kernel


def _dispatched(
    backend: str, flag: str, query_BNHD: torch.Tensor, key_BMHD: torch.Tensor, value_BMHD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A kernel of the library's table that reports (output, log-sum-exp [B, H, N]) when its flag is set."""
    output_BNHD, logsumexp_BHN = dispatch_attention_fn(
        query_BNHD, key_BMHD, value_BMHD, backend=backend, attention_kwargs={flag: True}
    )
    return output_BNHD, logsumexp_BHN


_PARTIALS: Mapping[tuple[str, str], Partial] = {
    # The engines of a ring by (device, backend); those of other packages are in `engines`.
    ("cpu", "native"): _aten(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu),
    ("cuda", "native"): _aten(torch.ops.aten._scaled_dot_product_efficient_attention, None, True),
    ("cuda", "_native_flash"): _aten(torch.ops.aten._scaled_dot_product_flash_attention),
    ("cuda", "_native_cudnn"): _aten(torch.ops.aten._scaled_dot_product_cudnn_attention, None, True),
    ("cuda", "flash"): partial(_dispatched, "flash", "return_lse"),
    ("cuda", "flash_hub"): partial(_dispatched, "flash_hub", "return_lse"),
    ("cuda", "_flash_3_hub"): partial(_dispatched, "_flash_3_hub", "return_attn_probs"),
}
