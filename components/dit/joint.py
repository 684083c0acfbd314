"""Queries, keys and values of HunyuanVideo's attention: video and text tokens attend to each other as one sequence.

Shape letters: B batch, n video rows, m text rows, s = n + m, C width, H heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb

Rope = tuple[torch.Tensor, torch.Tensor]


def projections(
    attn: Any, video_BnC: torch.Tensor, text_BmC: torch.Tensor, rope: Rope
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value [B, s, H, D] of the library's Attention, video first; only video has positions.

    A dual-stream block has projections of their own for the text, a single-stream block has one for all.
    """
    rows = [(video_BnC, (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k))]
    if attn.add_q_proj is None:
        rows.append((text_BmC, *rows[0][1:]))
    else:
        added = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        rows.append((text_BmC, added, (attn.norm_added_q, attn.norm_added_k)))
    streams = []
    for stream_BxC, (to_q, to_k, to_v), (norm_q, norm_k) in rows:
        query, key, value = (project(stream_BxC).unflatten(2, (attn.heads, -1)) for project in (to_q, to_k, to_v))
        streams.append((norm_q(query), norm_k(key), value))
    (query, key, value), text = streams
    video = (apply_rotary_emb(query, rope, sequence_dim=1), apply_rotary_emb(key, rope, sequence_dim=1), value)
    query_BsHD, key_BsHD, value_BsHD = (torch.cat(pair, dim=1) for pair in zip(video, text, strict=True))
    return query_BsHD, key_BsHD, value_BsHD


def outputs(attn: Any, rows_BsHD: torch.Tensor, text: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Video and text rows again, behind their last projections where the block has some; `text` is m."""
    rows_BsC = rows_BsHD.flatten(2)
    video_BnC, text_BmC = rows_BsC[:, :-text], rows_BsC[:, -text:]
    if getattr(attn, "to_out", None) is not None:
        projection, dropout = attn.to_out
        video_BnC = dropout(projection(video_BnC))
    if getattr(attn, "to_add_out", None) is not None:
        text_BmC = attn.to_add_out(text_BmC)
    return video_BnC, text_BmC


class JointAttention:
    """Attention processor of every block. Text comes without padding, so no mask is needed and every kernel works."""

    _attention_backend = None  # the library's names, which its `set_attention_backend` sets
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        image_rotary_emb: Rope,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Video rows [B, n, C] and text rows [B, m, C] in and out; the mask, which is true everywhere, is left out."""
        rows = projections(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        attended_BsHD = dispatch_attention_fn(*rows, backend=self._attention_backend).type_as(rows[0])
        return outputs(attn, attended_BsHD, encoder_hidden_states.shape[1])
