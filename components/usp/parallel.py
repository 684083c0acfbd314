"""One DiT, its forward shared among ranks, the way of sharing changeable between forwards.

Where the sequence is cut and joined, in a forward of the library's WanTransformer3DModel:

    rope tables ─ cut ─┐
    patches ────── cut ┴► blocks (self-attention shared, text cross-attention local) ► head ─ joined ► velocity

Embeddings of time and text are computed on every rank: they are small, and text is never cut.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch.utils.hooks import RemovableHandle

from components.errors import Unsupported
from components.usp import kernels
from components.usp.attention import Sequence, SharedSelfAttention
from components.usp.engines import pick_engine
from components.usp.group import Meshes
from components.usp.layout import SINGLE, Layout, check


class SequenceParallel:
    """Applies layouts to a model. All ranks make the same calls in the same order.

    The model runs as before: whole latents in, whole velocity out, equal on every rank.
    """

    def __init__(self, model: WanTransformer3DModel, meshes: Meshes, engine: str | None = None) -> None:
        """Leaves the model as it is: its layout is 1 × 1 until `use`.

        Args:
            model: the DiT.
            meshes: of this world.
            engine: another package's kernel for shared forwards (`engines`); None for the model's own backend.
        """
        self._model = model
        self._meshes = meshes
        self._engine = engine
        self._layout = SINGLE
        self._handles: list[RemovableHandle] = []
        self._processors: list[Any] = []  # the blocks' own, while others are in their place
        self._partials: dict[str, kernels.Partial] = {}

    @property
    def layout(self) -> Layout:
        """The one in use."""
        return self._layout

    def use(self, layout: Layout) -> None:
        """Changes the layout for the forwards to come. 1 × 1 restores the model exactly.

        Raises:
            ValueError: the layout does not fit the world or the model's heads.
            Unsupported: the model's attention backend cannot run in a ring, or the engine does not work here.
        """
        check(layout, self._meshes.world_size, self._heads)
        # Whatever can be refused is refused before anything changes.
        sequence = None if layout == SINGLE else Sequence(layout, self._meshes[layout], self._partial(layout))
        self._restore()
        if sequence is not None:
            self._install(sequence)
        self._layout = layout

    @property
    def _heads(self) -> int:
        return int(self._model.config.num_attention_heads)

    def _partial(self, layout: Layout) -> kernels.Partial | None:
        if layout.ring == 1 and self._engine is None:
            return None
        processor = self._processors[0] if self._processors else self._model.blocks[0].attn1.processor
        backend = self._engine or _name(processor._attention_backend)
        if backend not in self._partials:
            head_width = int(self._model.config.attention_head_dim)
            weight = self._model.blocks[0].attn1.to_q.weight
            pick = pick_engine if self._engine else kernels.pick_partial
            self._partials[backend] = pick(backend, weight.device, weight.dtype, head_width)
        return self._partials[backend]

    def _install(self, sequence: Sequence) -> None:
        model = self._model
        for block in model.blocks:
            own = block.attn1.processor
            self._processors.append(own)
            block.attn1.set_processor(SharedSelfAttention(sequence, own._attention_backend))

        def cut_rope(_module: Any, _args: Any, tables: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            sequence.begin(tables[0].shape[1])  # the model's first act is its rope, one row per token
            return tuple(sequence.split(table) for table in tables)

        def cut_rows(_module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            rows_BLC, context_BLD, modulation, *rest = args
            if modulation.ndim != 3:
                raise Unsupported("A timestep per token cannot be shared among ranks; use a degree of 1.")
            return (sequence.split(rows_BLC), context_BLD, modulation, *rest)

        def join(_module: Any, _args: Any, rows_BnC: torch.Tensor) -> torch.Tensor:
            return sequence.gather(rows_BnC)

        self._handles = [
            model.rope.register_forward_hook(cut_rope),
            model.blocks[0].register_forward_pre_hook(cut_rows),
            model.proj_out.register_forward_hook(join),
        ]

    def _restore(self) -> None:
        for handle in self._handles:
            handle.remove()
        for block, own in zip(self._model.blocks, self._processors, strict=False):
            block.attn1.set_processor(own)
        self._handles, self._processors = [], []


def _name(backend: Any) -> str:
    """The library's name of a backend; it keeps an enumeration's member, or None for its default."""
    return "native" if backend is None else str(getattr(backend, "value", backend))
