"""The branches of a guided step on different ranks at once ("CFG-parallel").

The world is cut into groups of as many ranks as the inner layout has; group g evaluates branch g, and one exchange
gives every rank all results. Branches that do not fill a round are shared by the whole world instead, one after the
other, so three branches on two groups are two at once and then one on all ranks, an unguided step (one branch) is
plain sequence parallelism, and no rank ever idles.

It pays for what sequence parallelism loses: with e(n) the efficiency of n ranks on one forward, k branches on k groups
of n take 1 / (n · e(n)) of a forward, and 1 / (n · e(k · n)) when all ranks share each of them. With e = 0.97, 0.94,
0.88 for 2, 4, 8 ranks (estimates) two branches take 3 % less time on 2 × 1 ranks and 6 % less on 2 × 4. The released
reference-to-video checkpoints run without guidance, where it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from components.branches import Branch, in_turn
from components.usp.group import Meshes
from components.usp.layout import Layout
from components.usp.parallel import SequenceParallel


class BranchParallel:
    """Evaluates branches (`components.branches.Branches`). All ranks call it with the same branches.

    It sets the layout before every evaluation, so nobody else calls `SequenceParallel.use` meanwhile.
    """

    def __init__(self, sequence: SequenceParallel, meshes: Meshes, *, inner: Layout, whole: Layout) -> None:
        """Tries both layouts.

        Args:
            sequence: of the model that the branches evaluate.
            meshes: of the same world.
            inner: how one group shares its branch; its degree is the group's size.
            whole: how all ranks share a branch that is left over.

        Raises:
            ValueError: a layout does not fit the world or the heads, or leaves no second group.
            Unsupported: the model's attention backend cannot run in a ring.
        """
        for layout in (inner, whole):
            sequence.use(layout)
        if inner.degree == meshes.world_size:
            raise ValueError(
                f"{inner} takes all {meshes.world_size} ranks for one branch; choose a smaller degree, or no branch "
                f"parallelism."
            )
        self._sequence = sequence
        self._inner, self._whole = inner, whole
        self._groups = meshes.world_size // inner.degree
        # Ranks that hold the same place in their groups are as far apart as a ring's around groups of this size.
        across = meshes[Layout(ulysses=inner.degree, ring=self._groups)]
        self._across = across.get_group("ring")
        self._place = across.get_local_rank("ring")

    def __call__(self, branches: Sequence[Branch]) -> list[torch.Tensor]:
        """Every branch's result, in order and equal on all ranks."""
        results: list[torch.Tensor] = []
        rounds = len(branches) // self._groups
        if rounds:
            self._sequence.use(self._inner)
        for first in range(0, rounds * self._groups, self._groups):
            results += self._exchange(branches[first + self._place]())
        if left := branches[rounds * self._groups :]:
            self._sequence.use(self._whole)
            results += in_turn(left)
        return results

    def _exchange(self, own: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What each group has computed, by group."""
        gathered = own.new_empty((self._groups * own.shape[0], *own.shape[1:]))
        dist.all_gather_single(gathered, own.contiguous(), group=self._across)
        return gathered.chunk(self._groups)
