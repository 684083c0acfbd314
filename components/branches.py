"""The evaluations that one guided step needs, and how they are carried out: in turn, unless somebody arranges better.

Branches of a step do not depend on each other, so `components.usp.BranchParallel` may evaluate them on different ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Branch = Callable[[], torch.Tensor]
"""One evaluation of the DiT."""

Branches = Callable[[Sequence[Branch]], list[torch.Tensor]]
"""Evaluates branches whose results have one shape and dtype; results in the same order."""


def in_turn(branches: Sequence[Branch]) -> list[torch.Tensor]:
    """One after the other, each by whatever ranks share a forward."""
    return [branch() for branch in branches]
