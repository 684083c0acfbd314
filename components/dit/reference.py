"""Reference-to-video: the Wan text-to-video DiT with reference frames behind the video on the frame axis.

The released layout is the library's WanTransformer3DModel. References are clean latents that share the video's
timestep; as they follow the video, their rope positions in time are T … T + 3. All four slots are always there, zero
where no image was given, because zero references take part in attention too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from components.attention import pick
from components.checkpoints import fingerprint, known_arguments, load_strict, read_config
from components.device import Placement
from components.errors import CheckpointMismatch, Unsupported

REFERENCE_SLOTS = 4

_FP32_PARTS = frozenset({"time_embedder", "time_proj", "scale_shift_table", "norm1", "norm2", "norm3"})
"""Parts of parameter names that stay fp32 beside bf16 blocks: the modulation from the timestep on, and the norms.
The library's list lacks `time_proj`: its six modulation vectors would be rounded to bf16 before every block."""


class ReferenceDiT:
    """Predicts the flow velocity of the video frames. Stateless between calls."""

    def __init__(self, model: WanTransformer3DModel, placement: Placement, *, weights: str) -> None:
        """Wraps a model that is already on its device in its dtypes.

        Args:
            model: adopted; a hook is put on its text embedder.
            placement: the device and the blocks' dtype.
            weights: names the weights' content (`checkpoints.fingerprint`), for snapshots.
        """
        self._model = model
        self._placement = placement
        self.weights = weights
        # The library casts the modulation to the context's dtype, so the context goes in as fp32 and becomes the
        # blocks' dtype only here, behind that cast.
        model.condition_embedder.text_embedder.register_forward_pre_hook(_to_weight_dtype)

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release's `transformer/`. CheckpointMismatch; Unsupported for the attention backend."""
        backend = pick(attention, placement.device)
        folder = root / "transformer"
        config = read_config(folder / "config.json")
        if config.get("image_dim") is not None or config.get("added_kv_proj_dim") is not None:
            raise CheckpointMismatch(f"{folder} has an image encoder's branch, so it is no reference-to-video DiT.")
        with torch.device("meta"):
            model = WanTransformer3DModel(**known_arguments(WanTransformer3DModel, config))
        # Its tables are computed, not stored, so they must not stay on the meta device.
        options = model.config
        model.rope = WanRotaryPosEmbed(options.attention_head_dim, options.patch_size, options.rope_max_seq_len).to(
            placement.device
        )
        load_strict(
            model,
            folder,
            device=placement.device,
            dtype_of=lambda name: placement.dtype if _FP32_PARTS.isdisjoint(name.split(".")) else torch.float32,
        )
        model.set_attention_backend(backend)
        return cls(model, placement, weights=fingerprint(folder))

    @property
    def model(self) -> WanTransformer3DModel:
        """The library's model, for whoever arranges how it runs (`components.usp`)."""
        return self._model

    @property
    def device(self) -> torch.device:
        return self._placement.device

    @property
    def channels(self) -> int:
        """Latent channels C."""
        return int(self._model.config.in_channels)

    @property
    def text_dim(self) -> int:
        """Width D of the text context."""
        return int(self._model.config.text_dim)

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
        self._refuse_beyond_rope(hidden_BCTHW)
        (velocity_BCTHW,) = self._model(
            hidden_states=hidden_BCTHW,
            timestep=timestep_B.to(device),
            encoder_hidden_states=context_BLD.to(device, torch.float32),
            return_dict=False,
        )
        result_BCTHW: torch.Tensor = velocity_BCTHW[:, :, :frames].float()
        return result_BCTHW

    def _refuse_beyond_rope(self, hidden_BCTHW: torch.Tensor) -> None:
        options = self._model.config
        limit = int(options.rope_max_seq_len)
        sides = [side // patch for side, patch in zip(hidden_BCTHW.shape[2:], options.patch_size, strict=True)]
        if max(sides) > limit:
            raise Unsupported(
                f"The clip has {' × '.join(map(str, sides))} positions but this checkpoint's rope table ends at "
                f"{limit} per axis; ask for a shorter or smaller video."
            )


def _to_weight_dtype(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (args[0].to(module.linear_1.weight.dtype),)
