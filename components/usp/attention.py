"""Exact self-attention over a sequence of which each rank holds a part.

Ulysses (Jacobs et al. 2023, arXiv:2309.14509): before attention the ranks of a group exchange parts of the sequence
for parts of the heads, and back afterwards. Ring (Liu et al. 2023, arXiv:2310.01889): keys and values travel round the
ranks while each joins what it sees; the next part is on its way while the present one is computed. Both together:
Fang and Zhao 2024, arXiv:2405.07719.

All messages have the padded length, so no rank asks another for sizes. Padded keys are cut off before the kernel sees
them (they are at the end of any run of consecutive places), which needs no mask and keeps every kernel usable; rows of
padded queries are computed and dropped when the sequence is gathered.

Shape letters: B batch, n rows of one rank, s rows of one Ulysses group, H heads, h heads of one rank, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from components.dit.causal import segments
from components.dit.rows import projections
from components.errors import Unsupported
from components.usp import kernels
from components.usp.layout import Layout, SplitPlan, split_plan


class Sequence:
    """The sequence of one forward at a time, shared by a group of ranks."""

    def __init__(self, layout: Layout, mesh: DeviceMesh, partial: kernels.Partial | None) -> None:
        """`partial` is the ring's kernel; None for the model's own, where the ring is 1. `begin` starts a forward."""
        self._layout = layout
        self._partial = partial
        self._ulysses = mesh.get_group("ulysses")
        self._ring = mesh.get_group("ring")
        self._ring_place = mesh.get_local_rank("ring")
        self._place = self._ring_place * layout.ulysses + mesh.get_local_rank("ulysses")
        self._plan: SplitPlan  # of the forward that is under way
        self._block: int | None = None

    def begin(self, tokens: int, unit: int = 1, block: int | None = None) -> None:
        """A forward over so many tokens starts.

        Args:
            tokens: of the whole sequence.
            unit: consecutive tokens that stay together.
            block: tokens see their own block of so many and those before it; None = all see all.
        """
        self._plan = split_plan(tokens, self._layout.degree, unit)
        self._block = block

    def split_units(self, rows_Un: torch.Tensor, unit: int) -> torch.Tensor:
        """This rank's rows [u, …] of a table [U, …] with one row per unit, filled up with zeros."""
        start, stop = self._plan.slices[self._place]
        part = rows_Un[start // unit : stop // unit]
        missing = self._plan.rows // unit - part.shape[0]
        return torch.cat([part, part.new_zeros((missing, *part.shape[1:]))]) if missing else part

    def split(self, rows_BL: torch.Tensor) -> torch.Tensor:
        """This rank's rows [B, n, …] of a whole sequence [B, L, …], filled up with zeros."""
        return self._cut(rows_BL, self._plan)

    def _cut(self, rows_BL: torch.Tensor, plan: SplitPlan) -> torch.Tensor:
        start, stop = plan.slices[self._place]
        part = rows_BL[:, start:stop]
        missing = plan.rows - (stop - start)
        if not missing:
            return part.contiguous()
        padding = part.new_zeros((part.shape[0], missing, *part.shape[2:]))
        return torch.cat([part, padding], dim=1)

    def gather(self, rows_BnC: torch.Tensor) -> torch.Tensor:
        """The inverse of `split`, the same on every rank: [B, n, C] → [B, L, C]."""
        for group in (self._ulysses, self._ring):
            if (size := dist.get_world_size(group)) > 1:
                batch, rows, width = rows_BnC.shape
                gathered = rows_BnC.new_empty((size * batch, rows, width))
                dist.all_gather_single(gathered, rows_BnC.contiguous(), group=group)
                rows_BnC = torch.unflatten(gathered, 0, (size, batch)).transpose(0, 1).flatten(1, 2)
        return rows_BnC[:, : self._plan.tokens]

    @property
    def tokens(self) -> int:
        """Of the whole sequence."""
        return self._plan.tokens

    @property
    def held(self) -> tuple[int, int]:
        """This rank's tokens, (start, stop)."""
        return self._plan.slices[self._place]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Adds up what the ranks hold, in place; the same on every rank."""
        for group in (self._ulysses, self._ring):
            dist.all_reduce(values, group=group)
        return values

    def attend(
        self, query_BnHD: torch.Tensor, key_BnHD: torch.Tensor, value_BnHD: torch.Tensor, backend: str | None
    ) -> torch.Tensor:
        """Attention of this rank's queries over the real keys of all ranks, [B, n, H, D]."""
        query_BshD, key_BshD, value_BshD = self._to_heads(query_BnHD, key_BnHD, value_BnHD)
        if self._partial is None:
            key_BshD, value_BshD = (
                self._real(rows_BshD, 0, self._layout.degree) for rows_BshD in (key_BshD, value_BshD)
            )
            parts = [
                kernels.whole(backend, query_BshD[:, start:stop], key_BshD[:, :seen], value_BshD[:, :seen])
                for start, stop, keys in self._runs(0, query_BshD.shape[1])
                for seen in (self._seen(key_BshD.shape[1], keys, 0),)
            ]
            output_BshD = torch.cat(parts, dim=1)
        else:
            output_BshD = self._round(self._partial, query_BshD, key_BshD, value_BshD)
        return self._to_rows(output_BshD.to(query_BnHD.dtype))

    def _real(self, rows_BshD: torch.Tensor, first: int, count: int) -> torch.Tensor:
        """What `count` consecutive places from `first` on hold, without their padding."""
        return rows_BshD[:, : self._plan.held(first, count)]

    def _runs(self, first: int, rows: int) -> Iterator[tuple[int, int, int]]:
        """Queries in runs that see the same keys, as `segments`."""
        return segments(first, rows, self._plan.tokens, self._block)

    def _seen(self, real: int, keys: int, before: int) -> int:
        """Of `real` rows that have `before` others before them in the sequence: those among its first `keys`."""
        return real if self._block is None else min(real, keys - before)

    def _to_heads(self, *tensors_BnHD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All heads of n rows → h heads of all s rows of the Ulysses group; one exchange for all tensors."""
        size = self._layout.ulysses
        if size == 1:
            return tensors_BnHD
        stacked_XBnHD = torch.stack(tensors_BnHD)
        send = torch.unflatten(stacked_XBnHD, 3, (size, -1)).permute(3, 0, 1, 2, 4, 5).contiguous()  # to, X, B, n, h, D
        received = torch.empty_like(send)  # from, X, B, n, h, D
        dist.all_to_all_single(received, send, group=self._ulysses)
        return received.permute(1, 2, 0, 3, 4, 5).flatten(2, 3).unbind(0)

    def _to_rows(self, rows_BshD: torch.Tensor) -> torch.Tensor:
        """The inverse of `_to_heads` for one tensor."""
        size = self._layout.ulysses
        if size == 1:
            return rows_BshD
        send = torch.unflatten(rows_BshD, 1, (size, -1)).transpose(0, 1).contiguous()  # to, B, n, h, D
        received = torch.empty_like(send)  # from, B, n, h, D
        dist.all_to_all_single(received, send, group=self._ulysses)
        return received.permute(1, 2, 0, 3, 4).flatten(2, 3)

    def _round(
        self, partial: kernels.Partial, query_BshD: torch.Tensor, key_BshD: torch.Tensor, value_BshD: torch.Tensor
    ) -> torch.Tensor:
        """Attention over the keys of all ring places, fp32."""
        # The neutral part: no keys seen, so nothing of it remains after the first join.
        output_BshD = torch.zeros_like(query_BshD, dtype=torch.float32)
        logsumexp_Bhs = output_BshD.new_full(output_BshD.shape[:3], -torch.inf).transpose(1, 2)
        present_XBshD = torch.stack([key_BshD, value_BshD])
        place_rows = query_BshD.shape[1]  # of a ring place
        runs = tuple(self._runs(self._ring_place * place_rows, place_rows))
        for turn in range(self._layout.ring):
            last = turn == self._layout.ring - 1
            coming_XBshD = present_XBshD if last else torch.empty_like(present_XBshD)
            transfers = [] if last else self._pass_on(present_XBshD, coming_XBshD)
            owner = (self._ring_place - turn) % self._layout.ring
            first, count = owner * self._layout.ulysses, self._layout.ulysses
            real = [self._real(rows_BshD, first, count) for rows_BshD in present_XBshD.unbind(0)]
            for start, stop, keys in runs:
                seen = self._seen(real[0].shape[1], keys, owner * place_rows)
                if seen <= 0:  # padding only, or frames behind all of these
                    continue
                seen_BshD, seen_Bhs = partial(query_BshD[:, start:stop], *(rows_BshD[:, :seen] for rows_BshD in real))
                output_BshD[:, start:stop], logsumexp_Bhs[..., start:stop] = kernels.merge(
                    output_BshD[:, start:stop], logsumexp_Bhs[..., start:stop], seen_BshD.float(), seen_Bhs.float()
                )
            for transfer in transfers:
                transfer.wait()
            present_XBshD = coming_XBshD
        return output_BshD

    def _pass_on(self, present: torch.Tensor, coming: torch.Tensor) -> list[Any]:
        """Starts sending to the next ring place and receiving from the one before; wait on what it returns."""
        size = self._layout.ring
        return dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, present, group=self._ring, group_peer=(self._ring_place + 1) % size),
                dist.P2POp(dist.irecv, coming, group=self._ring, group_peer=(self._ring_place - 1) % size),
            ]
        )


class SharedSpan:
    """A rank's part of a shared sequence (`components.dit.span.Span`) during the forward that is under way."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence

    @property
    def first(self) -> int:
        return self._sequence.held[0]

    @property
    def tokens(self) -> int:
        return self._sequence.tokens

    def leading(self, rows_BnHD: torch.Tensor, count: int) -> torch.Tensor:
        """Every rank puts what it holds of them into zeros; the sum over ranks is exact."""
        start, stop = self._sequence.held
        held = max(min(stop, count) - start, 0)
        rows_BcHD = rows_BnHD.new_zeros((rows_BnHD.shape[0], count, *rows_BnHD.shape[2:]))
        rows_BcHD[:, start : start + held] = rows_BnHD[:, :held]
        return self._sequence.sum(rows_BcHD)

    def gather(self, values_nX: torch.Tensor) -> torch.Tensor:
        return self._sequence.gather(values_nX[None])[0]


class SharedSelfAttention:
    """Attention processor of a Wan block's self-attention over a shared sequence."""

    def __init__(self, sequence: Sequence, backend: str | None) -> None:
        self._sequence = sequence
        self._attention_backend = backend  # the library's name, so that its `set_attention_backend` finds it

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        *,
        observe: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    ) -> torch.Tensor:
        """Rows [B, n, C] in and out; `observe` sees this rank's queries and keys.

        Raises:
            Unsupported: for a mask, or for cross-attention, which is never shared.
        """
        if encoder_hidden_states is not None or attention_mask is not None:
            raise Unsupported("A shared sequence has self-attention without a mask only; use a degree of 1.")
        query_BnHD, key_BnHD, value_BnHD = projections(attn, hidden_states, rotary_emb)
        if observe is not None:
            observe(query_BnHD, key_BnHD)
        rows_BnHD = self._sequence.attend(query_BnHD, key_BnHD, value_BnHD, self._attention_backend)
        projection, dropout = attn.to_out
        rows_BnC: torch.Tensor = dropout(projection(rows_BnHD.flatten(2)))
        return rows_BnC
