"""Video extension: the Wan text-to-video DiT with clean frames of the source beside those to be made.

Single-shot: the source's frames come first, at positions 0 … K − 1 in time, the new ones follow. Shot switching: the
new frames come first, the source's last ones behind them at positions 1024 … 1024 + K − 1, far away in time. Source
frames have timestep 0, the new ones the current one.

Releases hold both as `transformer/` and `shot_transformer/`, in the original layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from components.attention import pick
from components.checkpoints import fingerprint, load_strict, read_config
from components.device import Placement
from components.dit import wan
from components.dit.by_frame import modulate_by_frame
from components.errors import CheckpointMismatch

SHOT_POSITION = 1024
"""Where the source's frames of a shot switch begin in time."""
ROPE_POSITIONS = 2 * SHOT_POSITION
"""Length of the rope table per axis."""


class TimedRope(torch.nn.Module):
    """The library's rope, the frames' positions in time given from outside."""

    def __init__(self, head_width: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self._tables = WanRotaryPosEmbed(head_width, patch, ROPE_POSITIONS)
        self.times: Sequence[int] = ()
        """Positions of the frames of the next forward; set it before."""

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tables [1, F · h · w, 1, head width] for latents [B, C, F, H, W]."""
        _, patch_h, patch_w = self._tables.patch_size
        size = hidden_states.shape[3] // patch_h, hidden_states.shape[4] // patch_w
        return self._table(self._tables.freqs_cos, size), self._table(self._tables.freqs_sin, size)

    def _table(self, angles: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        tables, (height, width) = self._tables, size
        time, rows, columns = torch.split(angles, [tables.t_dim, tables.h_dim, tables.w_dim], dim=1)
        frames = time[torch.tensor(self.times, device=time.device)]
        shape = (len(frames), height, width, -1)
        parts = (
            frames[:, None, None].expand(shape),
            rows[:height][None, :, None].expand(shape),
            columns[:width][None, None, :].expand(shape),
        )
        return torch.cat(parts, dim=-1).reshape(1, len(frames) * height * width, 1, -1)


class ExtensionDiT(wan.WanDiT[WanTransformer3DModel]):
    """Predicts the flow velocity of the new frames. One forward at a time; nothing is kept between them."""

    def __init__(self, model: WanTransformer3DModel, placement: Placement, *, shot: bool, weights: str) -> None:
        """Wraps a model that is already on its device in its dtypes, with a `TimedRope`.

        Args:
            model: adopted; its blocks are made to take a timestep per frame.
            placement: the device and the blocks' dtype.
            shot: whether the source's frames stand behind the new ones, as in shot switching.
            weights: names the weights' content (`checkpoints.fingerprint`), for snapshots.
        """
        super().__init__(model, placement, weights=weights)
        self._shot = shot
        modulate_by_frame(model)
        model.condition_embedder.timesteps_proj = wan.PreciseTimesteps(model.config.freq_dim)

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto", *, shot: bool) -> Self:
        """From a release's `transformer/` or `shot_transformer/`. CheckpointMismatch; Unsupported for the attention."""
        backend = pick(attention, placement.device)
        folder = root / ("shot_transformer" if shot else "transformer")
        model = on_meta(folder)
        with_rope(model, placement.device)
        load_strict(
            model,
            folder,
            device=placement.device,
            dtype_of=lambda name: wan.dtype_of(placement, name),
            stored_as=wan.original_name,
        )
        dit = cls(model, placement, shot=shot, weights=fingerprint(folder))
        model.set_attention_backend(backend)
        return dit

    @torch.no_grad()
    def forward(
        self, new_BCTHW: torch.Tensor, source_BCKHW: torch.Tensor, timestep: float, context_BLD: torch.Tensor
    ) -> torch.Tensor:
        """One evaluation. B is 1.

        Args:
            new_BCTHW: noisy latents of the frames to be made, normalised.
            source_BCKHW: clean latents of the source's frames, normalised; K may be 0.
            timestep: of the new frames, 0 … 1000.
            context_BLD: every text row, padding included.

        Returns:
            Velocity [1, C, T, H, W] fp32 of the new frames only.

        Raises:
            Unsupported: the clip exceeds the rope table.
        """
        device = self._placement.device
        made, given = new_BCTHW.shape[2], source_BCKHW.shape[2]
        parts, times = [source_BCKHW, new_BCTHW], [0.0] * given + [float(timestep)] * made
        positions: Sequence[int] = range(given + made)
        if self._shot:
            parts, times = parts[::-1], times[::-1]
            positions = (*range(made), *range(SHOT_POSITION, SHOT_POSITION + given))
        hidden_BCTHW = torch.cat(parts, dim=2).to(device, self._placement.dtype)
        wan.refuse_beyond_rope(self._model, hidden_BCTHW)
        self._model.rope.times = positions
        (velocity_BCTHW,) = self._model(
            hidden_states=hidden_BCTHW,
            timestep=torch.tensor(times, device=device),
            encoder_hidden_states=context_BLD.to(device, torch.float32),
            return_dict=False,
        )
        start = 0 if self._shot else given
        result_BCTHW: torch.Tensor = velocity_BCTHW[:, :, start : start + made].float()
        return result_BCTHW


def on_meta(folder: Path) -> WanTransformer3DModel:
    """The architecture that a folder's configuration describes, without weights. CheckpointMismatch."""
    file = folder / "config.json"
    return on_meta_of(read_config(file), str(file))


def on_meta_of(config: Mapping[str, Any], file: str) -> WanTransformer3DModel:
    """The same from the configuration itself; `file` is for messages."""
    if config.get("model_type", "t2v") != "t2v":
        raise CheckpointMismatch(f"{file} is of a {config['model_type']} model, so it is no extension DiT.")
    with torch.device("meta"):
        return WanTransformer3DModel(**wan.original_options(config, file), rope_max_seq_len=ROPE_POSITIONS)


def with_rope(model: WanTransformer3DModel, device: torch.device) -> None:
    """Gives a model its rope; the tables are computed, not stored."""
    options = model.config
    model.rope = TimedRope(options.attention_head_dim, options.patch_size).to(device)
