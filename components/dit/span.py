"""Which part of a sequence a DiT's rows are, and what its blocks must know of the others.

A DiT that runs alone holds the whole sequence. Where a forward is shared, `components.usp` puts its own span in place
of the whole one, so that a model's code is the same in both cases.

Shape letters: n rows held here, L tokens of the sequence, H heads, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


class Span(Protocol):
    """Rows `first` … of a sequence. Rows beyond its end are padding and never leave the model."""

    @property
    def first(self) -> int:
        """The token that row 0 holds."""

    @property
    def tokens(self) -> int:
        """L, without padding."""

    def leading(self, rows_BnHD: torch.Tensor, count: int) -> torch.Tensor:
        """The sequence's first `count` rows, wherever they are held: [B, count, H, D], equal on every rank."""

    def gather(self, values_nX: torch.Tensor) -> torch.Tensor:
        """What all rows say, in the sequence's order and without padding: [n, X] → [L, X], equal on every rank."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole sequence."""

    tokens: int
    first: int = 0

    def leading(self, rows_BnHD: torch.Tensor, count: int) -> torch.Tensor:
        """A view."""
        return rows_BnHD[:, :count]

    def gather(self, values_nX: torch.Tensor) -> torch.Tensor:
        """The values themselves."""
        return values_nX


class SpanOf(torch.nn.Module):
    """Tells a model its span at the start of a forward; a module so that a hook can tell it another one."""

    def forward(self, tokens: int) -> Span:
        return Whole(tokens)
