"""SkyReels V1: HunyuanVideo's DiT, of text alone or with the first frame's latents beside the noisy ones.

The library's class, whose released weights lie at the root of their repository. Text comes without its padding: masked
rows change nothing, and without them no mask is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from diffusers import HunyuanVideoTransformer3DModel

from components.attention import pick
from components.checkpoints import fingerprint, known_arguments, load_strict, read_config
from components.device import Placement
from components.dit.joint import JointAttention
from components.errors import CheckpointMismatch

_EMBEDDED_GUIDANCE = 1000.0
"""The guidance that the model is told: 1 of a scale by thousands. What guides these models are two evaluations."""


class HunyuanDiT:
    """Predicts the flow velocity. Stateless between calls."""

    def __init__(self, model: HunyuanVideoTransformer3DModel, placement: Placement, *, weights: str) -> None:
        """Wraps a model that is already on its device in its dtype.

        Args:
            model: adopted; its blocks get attention processors of ours.
            placement: the device and the dtype.
            weights: names the weights' content (`checkpoints.fingerprint`), for snapshots.
        """
        for block in (*model.transformer_blocks, *model.single_transformer_blocks):
            block.attn.set_processor(JointAttention())
        self._model = model
        self._placement = placement
        self.weights = weights

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto", *, image: bool = False) -> Self:
        """From a release's root folder; `image` for the one that takes a first frame.

        CheckpointMismatch; Unsupported for the attention backend.
        """
        backend = pick(attention, placement.device)
        model = on_meta(root, image=image)
        load_strict(model, root, device=placement.device, dtype_of=lambda _: placement.dtype)
        dit = cls(model, placement, weights=fingerprint(root))
        model.set_attention_backend(backend)
        return dit

    @property
    def model(self) -> HunyuanVideoTransformer3DModel:
        """The bare model, for whoever arranges how it runs (`components.usp`)."""
        return self._model

    @property
    def device(self) -> torch.device:
        return self._placement.device

    @property
    def channels(self) -> int:
        """Latent channels C of the video."""
        return int(self._model.config.out_channels)

    @property
    def text_dim(self) -> int:
        """Width D of the text rows."""
        return int(self._model.config.text_embed_dim)

    @property
    def pooled_dim(self) -> int:
        """Width E of the prompt as one vector."""
        return int(self._model.config.pooled_projection_dim)

    @torch.no_grad()
    def forward(
        self, latents_BCTHW: torch.Tensor, timestep: float, text_BLD: torch.Tensor, pooled_BE: torch.Tensor
    ) -> torch.Tensor:
        """One evaluation; B is 1.

        Args:
            latents_BCTHW: noisy latents, normalised; behind them on C those of the first frame where the model has it.
            timestep: 0 … 1000.
            text_BLD: rows of the prompt, none of them padding.
            pooled_BE: the prompt as one vector.

        Returns:
            Velocity [1, C, T, H, W] fp32.
        """
        device, dtype = self._placement.device, self._placement.dtype
        (velocity_BCTHW,) = self._model(
            hidden_states=latents_BCTHW.to(device, dtype),
            timestep=torch.tensor([timestep], device=device, dtype=torch.float32),
            encoder_hidden_states=text_BLD.to(device, dtype),
            encoder_attention_mask=torch.ones(text_BLD.shape[:2], device=device, dtype=dtype),
            pooled_projections=pooled_BE.to(device, dtype),
            guidance=torch.tensor([_EMBEDDED_GUIDANCE], device=device, dtype=dtype),
            return_dict=False,
        )
        result_BCTHW: torch.Tensor = velocity_BCTHW.float()
        return result_BCTHW


def on_meta(root: Path, *, image: bool | None = None) -> HunyuanVideoTransformer3DModel:
    """The architecture that a root folder's configuration describes, without weights.

    Raises:
        CheckpointMismatch: the configuration is none of SkyReels V1, or of the other model than `image` says (None:
            either).
    """
    file = root / "config.json"
    config = known_arguments(HunyuanVideoTransformer3DModel, read_config(file))
    try:
        with torch.device("meta"):
            model = HunyuanVideoTransformer3DModel(**config)
    except (TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{file} has an unusable number ({error}).") from error
    options = model.config
    takes, gives = int(options.in_channels), int(options.out_channels)
    if takes not in {gives, 2 * gives} or options.image_condition_type is not None or not options.guidance_embeds:
        raise CheckpointMismatch(f"{file} is none of SkyReels V1.")
    if image is not None and image != (takes == 2 * gives):
        kinds = {True: "image-to-video", False: "text-to-video"}
        raise CheckpointMismatch(f"{file} is of the {kinds[not image]} model; {kinds[image]} needs the other one.")
    return model
