"""Attention over video and text together, each of which is shared among the ranks: HunyuanVideo's.

Every rank holds a part of the video and a part of the text, both padded to equal length, so a message of one run of
places has padding in its middle. It is cut off the keys there too. Softmax does not mind the order of keys, so that
video and text are interleaved in a gathered run changes nothing.

Shape letters as in `components.usp.attention`; m text rows of one rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from components.dit.joint import Rope, outputs, projections
from components.usp.attention import Sequence
from components.usp.layout import SplitPlan, split_plan


class JointSequence(Sequence):
    """A sequence of video tokens and one of text tokens that attend to each other."""

    _text: SplitPlan  # of the forward that is under way

    def split_text(self, text_BLC: torch.Tensor) -> torch.Tensor:
        """This rank's text rows [B, m, C], filled up with zeros; m is 1 at least."""
        self._text = split_plan(text_BLC.shape[1], self._layout.degree)
        return self._cut(text_BLC, self._text)

    def _real(self, rows_BshD: torch.Tensor, first: int, count: int) -> torch.Tensor:
        """As `Sequence._real`, of places that each hold video rows, then text rows."""
        width = self._plan.rows + self._text.rows
        pieces = []
        for index, place in enumerate(range(first, first + count)):
            start = index * width
            pieces.append(rows_BshD[:, start : start + self._plan.held(place)])
            start += self._plan.rows
            pieces.append(rows_BshD[:, start : start + self._text.held(place)])
        return torch.cat(pieces, dim=1)


class SharedJointAttention:
    """Attention processor of a block over a shared sequence."""

    def __init__(self, sequence: JointSequence, backend: str | None) -> None:
        self._sequence = sequence
        self._attention_backend = backend  # the library's name, so that its `set_attention_backend` finds it

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        image_rotary_emb: Rope,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `components.dit.joint.JointAttention`, of this rank's rows."""
        rows = projections(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        attended_BsHD = self._sequence.attend(*rows, self._attention_backend)
        return outputs(attn, attended_BsHD, encoder_hidden_states.shape[1])


def install(model: Any, sequence: JointSequence) -> list[RemovableHandle]:
    """Where the library's HunyuanVideoTransformer3DModel is cut and joined; returns what takes it back.

    The rope's tables come first, one row per video token; text is refined whole on every rank and cut before the first
    block, and nobody needs it behind the last.
    """

    def cut_rope(_module: Any, _args: Any, tables: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        sequence.begin(tables[0].shape[0])
        return tuple(sequence.split(table[None])[0] for table in tables)

    def cut_rows(_module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        video_BLC, text_BLC, *rest = args
        return (sequence.split(video_BLC), sequence.split_text(text_BLC), *rest)

    def join(_module: Any, _args: Any, rows_BnC: torch.Tensor) -> torch.Tensor:
        return sequence.gather(rows_BnC)

    return [
        model.rope.register_forward_hook(cut_rope),
        model.transformer_blocks[0].register_forward_pre_hook(cut_rows),
        model.proj_out.register_forward_hook(join),
    ]
