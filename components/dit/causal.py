"""Attention in which frames see their own block of frames and the blocks before it, without a mask.

A block's queries attend to the keys up to the block's end, one kernel call per block. That is the masked attention
exactly, works with kernels that take no masks, holds no tokens × tokens and leaves out what a mask would throw away.

Shape letters: B batch, L tokens, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from components.dit.rows import projections


class Causality:
    """How the next forward of a model attends; whoever calls the model sets it before."""

    def __init__(self) -> None:
        self.tokens: int | None = None
        """Tokens of a block; None where all see all."""


def segments(first: int, rows: int, tokens: int, block: int | None) -> Iterator[tuple[int, int, int]]:
    """Rows first … first + rows − 1 of a sequence in runs that see the same keys: (start, stop, keys).

    Start and stop count from `first`, keys from the sequence's beginning. Rows behind the last token are padding, see
    all and mean nothing.
    """
    start = 0
    while start < rows:
        position = first + start
        if block is None or position >= tokens:
            yield start, rows, tokens
            return
        end = min((position // block + 1) * block, tokens)
        stop = min(end - first, rows)
        yield start, stop, end
        start = stop


class CausalSelfAttention:
    """Attention processor of a Wan block's self-attention."""

    _parallel_config = None  # the library's names
    _attention_backend = None

    def __init__(self, causality: Causality) -> None:
        """`causality` is the model's."""
        self._causality = causality

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Rows [B, L, C] in and out."""
        query_BLHD, key_BLHD, value_BLHD = projections(attn, hidden_states, rotary_emb)
        tokens = query_BLHD.shape[1]
        parts = [
            dispatch_attention_fn(
                query_BLHD[:, start:stop], key_BLHD[:, :keys], value_BLHD[:, :keys], backend=self._attention_backend
            )
            for start, stop, keys in segments(0, tokens, tokens, self._causality.tokens)
        ]
        projection, _ = attn.to_out
        rows_BLC: torch.Tensor = projection(torch.cat(parts, dim=1).flatten(2).type_as(query_BLHD))
        return rows_BLC
