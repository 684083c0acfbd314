"""Queries, keys and values of a Wan self-attention, with the rotary embedding.

Shape letters: B batch, n rows, C width, H heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch


def projections(
    attn: Any, rows_BnC: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value [B, n, H, D] of the library's WanAttention; `rope` are its tables (cosine, sine)."""
    query_BnHD = attn.norm_q(attn.to_q(rows_BnC)).unflatten(2, (attn.heads, -1))
    key_BnHD = attn.norm_k(attn.to_k(rows_BnC)).unflatten(2, (attn.heads, -1))
    value_BnHD = attn.to_v(rows_BnC).unflatten(2, (attn.heads, -1))
    if rope is not None:
        query_BnHD, key_BnHD = rotate(query_BnHD, *rope), rotate(key_BnHD, *rope)
    return query_BnHD, key_BnHD, value_BnHD


def rotate(rows_BnHD: torch.Tensor, cos_BnHD: torch.Tensor, sin_BnHD: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of neighbouring pairs (Su et al. 2021, arXiv:2104.09864).

    The library's tables hold each pair's angle twice; the rotation is computed in the tables' precision and rounded
    once, as the library does.
    """
    even, odd = torch.unflatten(rows_BnHD, -1, (-1, 2)).unbind(-1)
    cos, sin = cos_BnHD[..., 0::2], sin_BnHD[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).type_as(rows_BnHD)
