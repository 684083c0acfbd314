"""What an avatar's DiT does with sound: tokens from audio features, and an attention that hears them frame by frame.

Shape letters: P speakers, F pixel frames, W = 5 audio frames around each, T latent frames, A audio tokens of a latent
frame, E their width, n rows, S tokens of a latent frame, H heads, D head width, C = H · D, R regions.

The first latent frame is one pixel frame and hears its 5 audio frames. A later one is four pixel frames; of their
windows 8 audio frames are heard: the first's up to its centre, the centres of the two between, the last's from its
centre on.

Two speakers (Kong et al. 2025, arXiv:2505.22647): every token gets a position on a line, 0 … 4 by how much it looks at
the first person in the first frame, 20 … 24 for the second, 12 for the background, and each speaker's audio tokens lie
at the middle of that person's interval, so that a rotary embedding makes a face hear its own voice. The released model
reads the tokens' positions, which are in the order (frame, token), as if they were in the order (frame, head, token):
head h of frame f takes those of frame (f · H + h) mod T. It was trained so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.normalization import FP32LayerNorm
from torch.nn.functional import interpolate, pad

from components.dit.span import Span

REGIONS = 3
"""First person, second person, background."""
_INTERVALS = ((0.0, 4.0), (20.0, 24.0))
_BACKGROUND = 12.0
_THETA = 10000.0
_TINY = 1e-8  # keeps a region that every token sees alike from a division by zero


@dataclass(frozen=True, slots=True)
class AudioOptions:
    """The sound part's numbers; the last three are not in the release's configuration, which fixes them in code."""

    window: int  # audio frames heard around a pixel frame
    stride: int  # pixel frames of a later latent frame
    inner: int
    tokens: int  # A
    out: int  # E
    norm_rows: bool
    norm_audio: bool
    layers: int = 12  # of the audio encoder
    width: int = 768  # of its features
    image_dim: int = 1280

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """From an original `config.json`. TypeError or ValueError for an unusable number."""
        return cls(
            window=int(config.get("audio_window", 5)),
            stride=int(config.get("vae_scale", 4)),
            inner=int(config.get("intermediate_dim", 512)),
            tokens=int(config.get("context_tokens", 32)),
            out=int(config.get("output_dim", 768)),
            norm_rows=bool(config.get("norm_input_visual", True)),
            norm_audio=bool(config.get("norm_output_audio", True)),
            layers=int(config.get("audio_blocks", 12)),
            width=int(config.get("audio_channels", 768)),
            image_dim=int(config.get("img_dim", 1280)),
        )


class AudioProjection(torch.nn.Module):
    """Audio features to A tokens of width E for every latent frame."""

    def __init__(self, options: AudioOptions) -> None:
        """Layers as the release names them: `proj1` for the first frame, `proj1_vf` for later ones, then shared."""
        super().__init__()
        self._stride, self._tokens = options.stride, options.tokens
        frame = options.layers * options.width
        self.proj1 = torch.nn.Linear(options.window * frame, options.inner)
        self.proj1_vf = torch.nn.Linear((options.window + options.stride - 1) * frame, options.inner)
        self.proj2 = torch.nn.Linear(options.inner, options.inner)
        self.proj3 = torch.nn.Linear(options.inner, options.tokens * options.out)
        self.norm = FP32LayerNorm(options.out, eps=1e-5) if options.norm_audio else torch.nn.Identity()

    def forward(self, audio_PFWLE: torch.Tensor) -> torch.Tensor:
        """[P, 4k + 1, W, layers, width] → [P, k + 1, A, E]."""
        first, later = self.windows(audio_PFWLE)
        hidden = torch.cat([self.proj1(first.flatten(2)).relu(), self.proj1_vf(later.flatten(2)).relu()], dim=1)
        tokens = self.proj3(self.proj2(hidden).relu())
        rows: torch.Tensor = self.norm(torch.unflatten(tokens, -1, (self._tokens, -1)))
        return rows

    def windows(self, audio_PFWLE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The audio frames that latent frames hear: [P, 1, 5, …] of the first, [P, k, 8, …] of the later ones."""
        first, later = audio_PFWLE[:, :1], torch.unflatten(audio_PFWLE[:, 1:], 1, (-1, self._stride))
        middle = audio_PFWLE.shape[2] // 2
        parts = (
            later[:, :, 0, : middle + 1],
            later[:, :, 1:-1, middle],
            later[:, :, -1, middle:],
        )
        return first, torch.cat(parts, dim=2)


class FrameAudioAttention(torch.nn.Module):
    """Each video token attends to the audio tokens of its own latent frame."""

    def __init__(self, dim: int, heads: int, audio_dim: int) -> None:
        super().__init__()
        self._heads = heads
        self.q_linear = torch.nn.Linear(dim, dim)
        self.kv_linear = torch.nn.Linear(audio_dim, 2 * dim)
        self.proj = torch.nn.Linear(dim, dim)

    def forward(
        self,
        rows_BnC: torch.Tensor,
        audio_PTAE: torch.Tensor,
        span: Span,
        positions_L: torch.Tensor | None,
        backend: str | None,
    ) -> torch.Tensor:
        """Rows [1, n, C] in and out.

        Args:
            rows_BnC: any consecutive tokens; they need not begin or end with a frame, nor be of equal number
                everywhere.
            audio_PTAE: audio tokens of all latent frames; several speakers' are heard side by side.
            span: which tokens the rows are.
            positions_L: of all tokens of the sequence between two speakers; None for one.
            backend: the library's name of an attention kernel.
        """
        speakers, frames, count, _ = audio_PTAE.shape
        per_frame, rows = span.tokens // frames, rows_BnC.shape[1]
        # The rows lie in a run of frames; filled up to whole frames they are a batch of small attentions.
        first, lead = divmod(span.first, per_frame)
        held = -(-(lead + rows) // per_frame)
        heard = torch.arange(first, first + held, device=audio_PTAE.device).clamp(max=frames - 1)
        audio_fAE = audio_PTAE[:, heard].transpose(0, 1).flatten(1, 2)

        query_nHD = torch.unflatten(self.q_linear(rows_BnC)[0], -1, (self._heads, -1))
        key_fAHD, value_fAHD = torch.unflatten(self.kv_linear(audio_fAE), -1, (2, self._heads, -1)).unbind(2)
        if positions_L is not None:
            middles = torch.tensor([sum(interval) / 2 for interval in _INTERVALS[:speakers]], device=rows_BnC.device)
            token_n = (span.first + torch.arange(rows, device=rows_BnC.device)).clamp(max=span.tokens - 1)
            frame_n1, heads_H = (token_n // per_frame)[:, None], torch.arange(self._heads, device=rows_BnC.device)
            read_nH = ((frame_n1 * self._heads + heads_H) % frames) * per_frame + (token_n % per_frame)[:, None]
            query_nHD = _rotate(query_nHD, positions_L[read_nH])
            key_fAHD = _rotate(key_fAHD, middles.repeat_interleave(count)[:, None])
        query_fSHD = torch.unflatten(pad(query_nHD, (0, 0, 0, 0, lead, held * per_frame - lead - rows)), 0, (held, -1))
        heard_fSHD = dispatch_attention_fn(query_fSHD, key_fAHD, value_fAHD, backend=backend)
        result: torch.Tensor = self.proj(heard_fSHD.flatten(0, 1).flatten(1)[None, lead : lead + rows])
        return result


def region_tokens(regions_RYX: torch.Tensor | None, height: int, width: int) -> torch.Tensor:
    """Masks of any size → which tokens of the first frame they cover, [R, height · width], 0 or 1 in fp32.

    Sampled at the nearest pixel, so a mask may be of the picture's or of any other resolution.

    Raises:
        ValueError: not REGIONS masks, or one of them covers no token.
    """
    if regions_RYX is None or regions_RYX.ndim != 3 or regions_RYX.shape[0] != REGIONS:
        raise ValueError(f"two speakers need {REGIONS} masks: the first, the second, the background")
    sampled_BRyx = interpolate(regions_RYX[None].float(), size=(height, width), mode="nearest")
    regions_RS = (sampled_BRyx[0] > 0).flatten(1).float()
    if not bool(regions_RS.any(dim=1).all()):
        raise ValueError("a speaker's mask, or what the masks leave of the background, covers no token of the picture")
    return regions_RS


def attention_to_regions(
    query_BnHD: torch.Tensor, key_BSHD: torch.Tensor, regions_RS: torch.Tensor, backend: str | None
) -> torch.Tensor:
    """How much each row looks at each region of the first frame, [n, R] fp32: mean over heads and the region's tokens.

    An attention whose values are the regions' masks: nothing of n × S is ever held.

    Args:
        query_BnHD: with the rotary embedding, batch 1.
        key_BSHD: of the first frame's tokens, the same.
        regions_RS: 0 or 1, no region empty.
        backend: the library's name of an attention kernel.
    """
    count, width = regions_RS.shape[0], query_BnHD.shape[-1]
    values_SD = pad(regions_RS.T.to(query_BnHD.dtype), (0, width - count))  # kernels want one width for all
    value_BSHD = values_SD[None, :, None].expand(key_BSHD.shape).contiguous()
    looked_BnHD = dispatch_attention_fn(query_BnHD, key_BSHD, value_BSHD, backend=backend)
    looked_nR: torch.Tensor = looked_BnHD[0, :, :, :count].float().mean(dim=1)
    return looked_nR / regions_RS.sum(dim=1).float()


def speaker_positions(looks_LR: torch.Tensor) -> torch.Tensor:
    """Each token's place on the line between two speakers, [L] fp32, from the looks of all tokens at the regions."""
    lowest_R, highest_R = looks_LR.amin(dim=0), looks_LR.amax(dim=0)
    places = [
        (looks_LR[:, person] - lowest_R[person]) / (highest_R[person] - lowest_R[person] + _TINY) * (stop - start)
        + start
        for person, (start, stop) in enumerate(_INTERVALS)
    ]
    places.append(torch.full_like(places[0], _BACKGROUND))
    return torch.stack(places).gather(0, looks_LR.argmax(dim=1)[None])[0]


def _rotate(rows_xHD: torch.Tensor, positions_xH: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of neighbouring pairs, [..., n, H, D], by one position per row and head or one for all heads."""
    width = rows_xHD.shape[-1]
    even = torch.arange(0, width, 2, device=rows_xHD.device, dtype=torch.float32)
    angles_xHD = positions_xH[..., None].float() * _THETA ** (-even / width)
    cos, sin = angles_xHD.cos(), angles_xHD.sin()
    left, right = torch.unflatten(rows_xHD.float(), -1, (-1, 2)).unbind(-1)
    return torch.stack([left * cos - right * sin, left * sin + right * cos], dim=-1).flatten(-2).type_as(rows_xHD)
