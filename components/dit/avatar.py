"""Talking avatar: the Wan image-to-video DiT whose blocks hear.

Input channels are the noisy latents, a mask of four channels that says which pixel frames are known, and the latents
of the known frames. Every block attends to the video, then to text and image (two attentions over one query whose
results are added), then to the sound of its own latent frame, and ends with the feed-forward part.

Built on the library's image-to-video DiT; the sound parts are in `components.dit.speech`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanTransformerBlock

from components.attention import pick
from components.checkpoints import fingerprint, load_strict, read_config
from components.device import Placement
from components.dit import wan
from components.dit.rows import projections
from components.dit.span import Span, SpanOf
from components.dit.speech import (
    AudioOptions,
    AudioProjection,
    FrameAudioAttention,
    attention_to_regions,
    region_tokens,
    speaker_positions,
)
from components.errors import CheckpointMismatch

IMAGE_ROWS = 257
"""Rows of the image encoder in front of the text rows."""

Observer = Callable[[torch.Tensor, torch.Tensor], None]
"""Sees a self-attention's queries and keys, both [B, n, H, D] with the rotary embedding."""


class AvatarTransformer(WanTransformer3DModel):  # type: ignore[misc]
    """The model alone: original layout, library names for the Wan part, the release's for the sound part."""

    def __init__(self, wan_options: Mapping[str, Any], audio: AudioOptions) -> None:
        """`wan_options` are the library's arguments for the Wan part."""
        heads, layers = int(wan_options["num_attention_heads"]), int(wan_options["num_layers"])
        dim = heads * int(wan_options["attention_head_dim"])
        # The library's own blocks are left out, and built here with ears.
        super().__init__(**{**wan_options, "num_layers": 0}, image_dim=audio.image_dim, added_kv_proj_dim=dim)
        ffn_dim, eps = int(wan_options["ffn_dim"]), float(wan_options["eps"])
        self.condition_embedder.timesteps_proj = wan.PreciseTimesteps(int(wan_options["freq_dim"]))
        self.span = SpanOf()
        self.blocks = torch.nn.ModuleList(
            AvatarBlock(dim, ffn_dim, heads, eps, audio.out, norm_rows=audio.norm_rows) for _ in range(layers)
        )
        self.audio_proj = AudioProjection(audio)

    def forward(
        self,
        hidden_BCTHW: torch.Tensor,
        timestep_B: torch.Tensor,
        context_BLD: torch.Tensor,
        image_BID: torch.Tensor,
        audio_PFWLE: torch.Tensor,
        regions_RS: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One evaluation; B is 1.

        Args:
            hidden_BCTHW: noisy latents, mask and known latents; the blocks' dtype.
            timestep_B: 0 … 1000, fp32.
            context_BLD: every text row, padding included; fp32.
            image_BID: the image encoder's rows; the blocks' dtype.
            audio_PFWLE: P speakers' features around every pixel frame; the blocks' dtype.
            regions_RS: where the two speakers and the background are among the first frame's tokens; None for one.

        Returns:
            Velocity [B, C, T, H, W].
        """
        _, _, frames, height, width = hidden_BCTHW.shape
        _, patch_h, patch_w = self.config.patch_size
        grid = (frames, height // patch_h, width // patch_w)
        rope = self.rope(hidden_BCTHW)
        span = self.span(frames * grid[1] * grid[2])
        rows_BnC = self.patch_embedding(hidden_BCTHW).flatten(2).transpose(1, 2).contiguous()
        time_BC, modulation_BX, text_BLC, image_BIC = self.condition_embedder(timestep_B, context_BLD, image_BID)
        modulation_BXC = torch.unflatten(modulation_BX, 1, (6, -1))
        attended_BLC = torch.cat([image_BIC, text_BLC], dim=1)
        audio_PTAE = self.audio_proj(audio_PFWLE)
        for block in self.blocks:
            rows_BnC = block(rows_BnC, attended_BLC, modulation_BXC, rope, audio_PTAE, span, regions_RS)
        shift, scale = (self.scale_shift_table + time_BC.unsqueeze(1)).chunk(2, dim=1)
        rows_BnC = (self.norm_out(rows_BnC.float()) * (1 + scale) + shift).type_as(rows_BnC)
        velocity_BCTHW: torch.Tensor = self._unpatch(self.proj_out(rows_BnC), grid)
        return velocity_BCTHW

    def _unpatch(self, rows_BLX: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
        _, patch_h, patch_w = self.config.patch_size
        patches = torch.unflatten(torch.unflatten(rows_BLX, 1, grid), -1, (patch_h, patch_w, -1))  # B T h w ph pw C
        return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


class AvatarBlock(WanTransformerBlock):  # type: ignore[misc]
    """A Wan block with an attention to sound between those to text and image and the feed-forward part."""

    def __init__(self, dim: int, ffn_dim: int, heads: int, eps: float, audio_dim: int, *, norm_rows: bool) -> None:
        super().__init__(dim, ffn_dim, heads, cross_attn_norm=True, eps=eps, added_kv_proj_dim=dim)
        self.attn1.set_processor(ObservedSelfAttention())
        self.attn2.set_processor(TextImageAttention())
        self.norm_x = FP32LayerNorm(dim, eps) if norm_rows else torch.nn.Identity()
        self.audio_cross_attn = FrameAudioAttention(dim, heads, audio_dim)

    def forward(
        self,
        rows_BnC: torch.Tensor,
        attended_BLC: torch.Tensor,
        modulation_BXC: torch.Tensor,
        rope: tuple[torch.Tensor, torch.Tensor],
        audio_PTAE: torch.Tensor,
        span: Span,
        regions_RS: torch.Tensor | None,
    ) -> torch.Tensor:
        """Rows in and out; modulation in fp32."""
        shift, scale, gate, shift_f, scale_f, gate_f = (self.scale_shift_table + modulation_BXC.float()).chunk(6, 1)
        backend = self.attn2.processor._attention_backend
        positions: list[torch.Tensor] = []

        def observe(query_BnHD: torch.Tensor, key_BnHD: torch.Tensor) -> None:
            if regions_RS is not None:
                key_BSHD = span.leading(key_BnHD, regions_RS.shape[1])
                looks_nR = attention_to_regions(query_BnHD, key_BSHD, regions_RS, backend)
                positions.append(speaker_positions(span.gather(looks_nR)))

        normed = (self.norm1(rows_BnC.float()) * (1 + scale) + shift).type_as(rows_BnC)
        rows_BnC = (rows_BnC.float() + self.attn1(normed, None, None, rope, observe=observe) * gate).type_as(rows_BnC)
        rows_BnC = rows_BnC + self.attn2(self.norm2(rows_BnC.float()).type_as(rows_BnC), attended_BLC)
        normed = self.norm_x(rows_BnC.float()).type_as(rows_BnC)
        place_L = positions[0] if positions else None
        rows_BnC = rows_BnC + self.audio_cross_attn(normed, audio_PTAE, span, place_L, backend)
        normed = (self.norm3(rows_BnC.float()) * (1 + scale_f) + shift_f).type_as(rows_BnC)
        result_BnC: torch.Tensor = (rows_BnC.float() + self.ffn(normed).float() * gate_f).type_as(rows_BnC)
        return result_BnC


class ObservedSelfAttention:
    """Attention processor of a block's self-attention; shows its queries and keys."""

    _attention_backend = None  # the library's names, which its `set_attention_backend` sets
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None,
        attention_mask: None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor],
        *,
        observe: Observer,
    ) -> torch.Tensor:
        """Rows [B, n, C] in and out."""
        query_BnHD, key_BnHD, value_BnHD = projections(attn, hidden_states, rotary_emb)
        observe(query_BnHD, key_BnHD)
        rows_BnHD = dispatch_attention_fn(query_BnHD, key_BnHD, value_BnHD, backend=self._attention_backend)
        projection, _ = attn.to_out
        rows_BnC: torch.Tensor = projection(rows_BnHD.flatten(2).type_as(query_BnHD))
        return rows_BnC


class TextImageAttention:
    """Attention processor over text rows and, with keys and values of their own, the image rows in front of them.

    The library's takes the last 512 rows for text whatever there are; here the image rows are counted.
    """

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: None = None,
        rotary_emb: None = None,
    ) -> torch.Tensor:
        """Rows [B, n, C] in and out."""
        image_BIC, text_BLC = encoder_hidden_states[:, :IMAGE_ROWS], encoder_hidden_states[:, IMAGE_ROWS:]
        query_BnHD, *text = (
            part.unflatten(2, (attn.heads, -1))
            for part in (
                attn.norm_q(attn.to_q(hidden_states)),
                attn.norm_k(attn.to_k(text_BLC)),
                attn.to_v(text_BLC),
            )
        )
        image = (
            attn.norm_added_k(attn.add_k_proj(image_BIC)).unflatten(2, (attn.heads, -1)),
            attn.add_v_proj(image_BIC).unflatten(2, (attn.heads, -1)),
        )
        of_text, of_image = (
            dispatch_attention_fn(query_BnHD, *rows, backend=self._attention_backend).flatten(2).type_as(query_BnHD)
            for rows in (text, image)
        )
        projection, _ = attn.to_out
        rows_BnC: torch.Tensor = projection(of_text + of_image)
        return rows_BnC


class AvatarDiT(wan.WanDiT[AvatarTransformer]):
    """Predicts the flow velocity of one pass. Stateless between calls."""

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release's root folder. CheckpointMismatch; Unsupported for the attention backend."""
        backend = pick(attention, placement.device)
        model = on_meta(root)
        wan.place_rope(model, placement.device)
        load_strict(
            model,
            root,
            device=placement.device,
            dtype_of=lambda name: _dtype_of(placement, name),
            stored_as=wan.original_name,
        )
        model.set_attention_backend(backend)
        return cls(model, placement, weights=fingerprint(root))

    @torch.no_grad()
    def forward(
        self,
        video_BCTHW: torch.Tensor,
        known_BCTHW: torch.Tensor,
        timestep: float,
        context_BLD: torch.Tensor,
        image_BID: torch.Tensor,
        audio_PFWLE: torch.Tensor,
        regions_RYX: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One evaluation; B is 1.

        Args:
            video_BCTHW: noisy latents, normalised.
            known_BCTHW: four mask channels, then the normalised latents of the known frames.
            timestep: 0 … 1000.
            context_BLD: every text row, padding included.
            image_BID: the image encoder's IMAGE_ROWS rows.
            audio_PFWLE: per speaker what is heard at each of the 4 (T − 1) + 1 pixel frames.
            regions_RYX: masks of two speakers and the background, of any size that covers the picture; needed with
                two speakers, without meaning for one.

        Returns:
            Velocity [1, C, T, H, W] fp32.

        Raises:
            Unsupported: the clip exceeds the checkpoint's rope table.
            ValueError: the sound does not fit the frames, or two speakers come without usable regions.
        """
        device, dtype = self._placement.device, self._placement.dtype
        hidden_BCTHW = torch.cat([video_BCTHW, known_BCTHW], dim=1).to(device, dtype)
        wan.refuse_beyond_rope(self._model, hidden_BCTHW)
        frames, (height, width) = hidden_BCTHW.shape[2], (side // 2 for side in hidden_BCTHW.shape[3:])
        if audio_PFWLE.shape[1] != 4 * (frames - 1) + 1:
            raise ValueError(f"{audio_PFWLE.shape[1]} frames of sound do not fit {frames} latent frames")
        regions_RS = None
        if audio_PFWLE.shape[0] > 1:
            regions_RS = region_tokens(regions_RYX, height, width).to(device)
        velocity_BCTHW = self._model(
            hidden_BCTHW,
            torch.tensor([timestep], device=device, dtype=torch.float32),
            context_BLD.to(device, torch.float32),
            image_BID.to(device, dtype),
            audio_PFWLE.to(device, dtype),
            regions_RS,
        )
        result_BCTHW: torch.Tensor = velocity_BCTHW.float()
        return result_BCTHW


def on_meta(root: Path) -> AvatarTransformer:
    """The architecture that a root folder's configuration describes, without weights. CheckpointMismatch."""
    file = root / "config.json"
    config = read_config(file)
    options = wan.original_options(config, str(file))
    if config.get("model_type") != "i2v" or "audio_window" not in config:
        raise CheckpointMismatch(f"{file} is not of a talking avatar.")
    try:
        with torch.device("meta"):
            return AvatarTransformer(options, AudioOptions.of(config))
    except (TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{file} has an unusable number ({error}).") from error


def _dtype_of(placement: Placement, name: str) -> torch.dtype:
    if "norm_x" in name.split(".") or name.startswith("audio_proj.norm."):
        return torch.float32
    return wan.dtype_of(placement, name)
