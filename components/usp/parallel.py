"""One DiT, its forward shared among ranks, the way of sharing changeable between forwards.

Where the sequence is cut and joined, in a forward of the library's WanTransformer3DModel:

    rope tables ─ cut ─┐
    patches ────── cut ┴► blocks (self-attention shared, text cross-attention local) ► head ─ joined ► velocity

Embeddings of time and text are computed on every rank: they are small, and text is never cut. A model with a timestep
per frame (`components.dit.by_frame`) is cut between frames, its modulation with it; released sizes are multiples of
8 frames, so 2, 4 or 8 ranks have no padding. HunyuanVideo's model is cut in `components.usp.joint`.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel, WanTransformer3DModel
from torch.utils.hooks import RemovableHandle

from components.dit.by_frame import ByFrame, is_by_frame
from components.dit.causal import Causality
from components.dit.span import SpanOf
from components.errors import Unsupported
from components.usp import joint, kernels
from components.usp.attention import Sequence, SharedSelfAttention, SharedSpan
from components.usp.engines import pick_engine
from components.usp.group import Meshes
from components.usp.layout import SINGLE, Layout, check

_MODULATION_NDIM = 3  # [B or F, 6, C]


class SequenceParallel:
    """Applies layouts to a model. All ranks make the same calls in the same order.

    The model runs as before: whole latents in, whole velocity out, equal on every rank.
    """

    def __init__(
        self,
        model: WanTransformer3DModel | HunyuanVideoTransformer3DModel,
        meshes: Meshes,
        engine: str | None = None,
    ) -> None:
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
        partial = None if layout == SINGLE else self._partial(layout)
        self._restore()
        if layout != SINGLE:
            self._install(layout, partial)
        self._layout = layout

    @property
    def _attentions(self) -> list[Any]:
        """Of all blocks, those over the whole sequence."""
        model = self._model
        if isinstance(model, HunyuanVideoTransformer3DModel):
            return [block.attn for block in (*model.transformer_blocks, *model.single_transformer_blocks)]
        return [block.attn1 for block in model.blocks]

    @property
    def _heads(self) -> int:
        return int(self._model.config.num_attention_heads)

    def _partial(self, layout: Layout) -> kernels.Partial | None:
        if layout.ring == 1 and self._engine is None:
            return None
        attention = self._attentions[0]
        processor = self._processors[0] if self._processors else attention.processor
        backend = self._engine or _name(processor._attention_backend)
        if backend not in self._partials:
            head_width = int(self._model.config.attention_head_dim)
            weight = attention.to_q.weight
            pick = pick_engine if self._engine else kernels.pick_partial
            self._partials[backend] = pick(backend, weight.device, weight.dtype, head_width)
        return self._partials[backend]

    def _install(self, layout: Layout, partial: kernels.Partial | None) -> None:
        self._processors = [attention.processor for attention in self._attentions]
        if isinstance(self._model, HunyuanVideoTransformer3DModel):
            together = joint.JointSequence(layout, self._meshes[layout], partial)
            for attention in self._attentions:
                backend = attention.processor._attention_backend
                attention.set_processor(joint.SharedJointAttention(together, backend))
            self._handles = joint.install(self._model, together)
        else:
            self._install_wan(Sequence(layout, self._meshes[layout], partial))

    def _install_wan(self, sequence: Sequence) -> None:
        model, by_frame = self._model, is_by_frame(self._model)
        causality: Causality | None = getattr(model, "causality", None)
        for attention in self._attentions:
            shared = SharedSelfAttention(sequence, attention.processor._attention_backend)
            attention.set_processor(ByFrame(shared) if by_frame else shared)

        unit = 1

        def cut_rope(_module: Any, args: Any, tables: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            nonlocal unit  # the model's first act is its rope, one row per token
            tokens, frames = tables[0].shape[1], args[0].shape[2] // model.config.patch_size[0]
            unit = tokens // frames if by_frame else 1
            sequence.begin(tokens, unit, None if causality is None else causality.tokens)
            return tuple(sequence.split(table) for table in tables)

        def cut_times(_module: Any, _args: Any, embeddings: tuple[Any, ...]) -> tuple[Any, ...]:
            time_FC, modulation_FC, *rest = embeddings
            return sequence.split_units(time_FC, unit), sequence.split_units(modulation_FC, unit), *rest

        def cut_rows(_module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            rows_BLC, context_BLD, modulation, *rest = args
            if modulation.ndim != _MODULATION_NDIM:
                raise Unsupported("A timestep per token cannot be shared among ranks; use a degree of 1.")
            return (sequence.split(rows_BLC), context_BLD, modulation, *rest)

        def join(_module: Any, _args: Any, rows_BnC: torch.Tensor) -> torch.Tensor:
            return sequence.gather(rows_BnC.flatten(0, 1)[None] if by_frame else rows_BnC)

        self._handles = [
            model.rope.register_forward_hook(cut_rope),
            model.blocks[0].register_forward_pre_hook(cut_rows, prepend=True),  # before rows are laid out by frames
            model.proj_out.register_forward_hook(join),
        ]
        if by_frame:
            self._handles.append(model.condition_embedder.register_forward_hook(cut_times))
        if isinstance(span := getattr(model, "span", None), SpanOf):
            self._handles.append(span.register_forward_hook(lambda _module, _args, _whole: SharedSpan(sequence)))

    def _restore(self) -> None:
        for handle in self._handles:
            handle.remove()
        for attention, own in zip(self._attentions, self._processors, strict=False):
            attention.set_processor(own)
        self._handles, self._processors = [], []


def _name(backend: Any) -> str:
    """The library's name of a backend; it keeps an enumeration's member, or None for its default."""
    return "native" if backend is None else str(getattr(backend, "value", backend))
