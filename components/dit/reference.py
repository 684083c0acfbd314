"""Reference-to-video: the Wan text-to-video DiT with reference frames behind the video on the frame axis.

The released layout is the library's WanTransformer3DModel. References are clean latents that share the video's
timestep; as they follow the video, their rope positions in time are T … T + 3. All four slots are always there, zero
where no image was given, because zero references take part in attention too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from diffusers import WanTransformer3DModel

from components.attention import pick
from components.checkpoints import fingerprint, known_arguments, load_strict, read_config
from components.device import Placement
from components.dit import wan
from components.errors import CheckpointMismatch

REFERENCE_SLOTS = 4


class ReferenceDiT(wan.WanDiT[WanTransformer3DModel]):
    """Predicts the flow velocity of the video frames. Stateless between calls."""

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release's `transformer/`. CheckpointMismatch; Unsupported for the attention backend."""
        backend = pick(attention, placement.device)
        folder = root / "transformer"
        model = on_meta(folder)
        wan.place_rope(model, placement.device)
        load_strict(
            model,
            folder,
            device=placement.device,
            dtype_of=lambda name: wan.dtype_of(placement, name),
        )
        model.set_attention_backend(backend)
        return cls(model, placement, weights=fingerprint(folder))

    @torch.no_grad()
    def forward(
        self,
        video_BCTHW: torch.Tensor,
        references_BCKHW: torch.Tensor,
        timestep_B: torch.Tensor,
        context_BLD: torch.Tensor,
    ) -> torch.Tensor:
        """One evaluation.

        Args:
            video_BCTHW: noisy video latents, normalised.
            references_BCKHW: clean reference latents, normalised; K is REFERENCE_SLOTS.
            timestep_B: 0 … 1000.
            context_BLD: every text row, padding included.

        Returns:
            Velocity [B, C, T, H, W] fp32 of the video frames only.

        Raises:
            Unsupported: the clip exceeds the checkpoint's rope table.
        """
        device, frames = self._placement.device, video_BCTHW.shape[2]
        hidden_BCTHW = torch.cat([video_BCTHW, references_BCKHW], dim=2).to(device, self._placement.dtype)
        wan.refuse_beyond_rope(self._model, hidden_BCTHW)
        (velocity_BCTHW,) = self._model(
            hidden_states=hidden_BCTHW,
            timestep=timestep_B.to(device),
            encoder_hidden_states=context_BLD.to(device, torch.float32),
            return_dict=False,
        )
        result_BCTHW: torch.Tensor = velocity_BCTHW[:, :, :frames].float()
        return result_BCTHW


def on_meta(folder: Path) -> WanTransformer3DModel:
    """The architecture that a folder's configuration describes, without weights. CheckpointMismatch."""
    config = read_config(folder / "config.json")
    if config.get("image_dim") is not None or config.get("added_kv_proj_dim") is not None:
        raise CheckpointMismatch(f"{folder} has an image encoder's branch, so it is no reference-to-video DiT.")
    with torch.device("meta"):
        return WanTransformer3DModel(**known_arguments(WanTransformer3DModel, config))
