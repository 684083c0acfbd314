"""A timestep per latent frame for the library's WanTransformer3DModel, at the memory of one timestep.

The library can modulate every token by its own timestep, but then holds six fp32 rows per token: 17.7 GB for 40 frames
at 720P. Here the frames take the place of the batch inside the blocks: rows are [F, n, C] with n tokens per frame, the
modulation is [F, 6, C], and each broadcasts over its frame's tokens as usual. Only attention must see one sequence
again, so every processor is wrapped.

Shape letters: F frames, n tokens of one frame, C channels; B is 1.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanTransformer3DModel


def modulate_by_frame(model: WanTransformer3DModel) -> None:
    """From here on the model takes a timestep [F], one per latent frame of its one clip; there is no way back."""
    for block in model.blocks:
        for attention in (block.attn1, block.attn2):
            attention.set_processor(ByFrame(attention.processor))
    model.blocks[0].register_forward_pre_hook(_to_frames)


def is_by_frame(model: WanTransformer3DModel) -> bool:
    """Whether `modulate_by_frame` has been here."""
    return isinstance(model.blocks[0].attn2.processor, ByFrame)


class ByFrame:
    """Attention over all frames of rows that come and go as [F, n, C]."""

    def __init__(self, inner: Any) -> None:
        """`inner` is an attention processor for rows [1, F · n, C]."""
        self.inner = inner

    @property
    def _attention_backend(self) -> Any:  # the library's name, which its `set_attention_backend` looks for
        return self.inner._attention_backend

    @_attention_backend.setter
    def _attention_backend(self, backend: Any) -> None:
        self.inner._attention_backend = backend

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *args: Any) -> torch.Tensor:
        rows_BLC = hidden_states.flatten(0, 1).unsqueeze(0)
        attended_BLC: torch.Tensor = self.inner(attn, rows_BLC, *args)
        return attended_BLC.view_as(hidden_states)


def _to_frames(_module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    rows_BLC, context_BLD, modulation_F6C, *rest = args
    frames = modulation_F6C.shape[0]
    return (torch.unflatten(rows_BLC, 1, (frames, -1))[0], context_BLD, modulation_F6C, *rest)
