"""SkyReels V2: the Wan DiT for text- and image-to-video, and for diffusion forcing.

Diffusion forcing (Chen et al. 2024, arXiv:2407.01392) gives every latent frame a timestep of its own, so that some may
be known while others are noise. Its frames may be cut into blocks that see themselves and what comes before. The 1.3B
checkpoint is told the frame rate: a learned vector, added to the modulation.

Releases come in two layouts: the original one with `config.json` and weights in the root folder, and the library's with
a `transformer/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention import FeedForward

from components.attention import pick
from components.checkpoints import fingerprint, known_arguments, load_strict, read_config
from components.device import Placement
from components.dit import wan
from components.dit.by_frame import modulate_by_frame
from components.dit.causal import Causality, CausalSelfAttention
from components.errors import CheckpointMismatch

D = TypeVar("D", bound="wan.WanDiT[V2Transformer]")

TEXT_ROWS = 512
"""Text rows beside an image: the library takes the last so many for text, whatever there are."""
SLOW_FPS = 16
"""The one frame rate that models which are told it tell apart from all others."""


class V2Transformer(WanTransformer3DModel):  # type: ignore[misc]
    """The library's model; timesteps as precise as in the original, and the frame rate where a checkpoint knows it."""

    def __init__(self, options: Mapping[str, Any], *, told_rate: bool) -> None:
        """`options` are the library's arguments."""
        super().__init__(**options)
        self.condition_embedder.timesteps_proj = wan.PreciseTimesteps(int(self.config.freq_dim))
        self.causality = Causality()
        self.slow = False
        """Whether the next forward is of SLOW_FPS frames a second."""
        if told_rate:
            dim = int(self.config.num_attention_heads) * int(self.config.attention_head_dim)
            self.fps_embedding = torch.nn.Embedding(2, dim)
            self.fps_projection = FeedForward(dim, 6 * dim, mult=1, activation_fn="linear-silu")
            self.condition_embedder.register_forward_hook(self._add_rate)

    def _add_rate(self, _module: Any, _args: Any, embeddings: tuple[Any, ...]) -> tuple[Any, ...]:
        time_BC, modulation_BX, *rest = embeddings
        rate_C = self.fps_embedding.weight[0 if self.slow else 1]
        return time_BC, modulation_BX + self.fps_projection(rate_C).to(modulation_BX.dtype), *rest


class ClipDiT(wan.WanDiT[V2Transformer]):
    """Predicts the flow velocity of a clip, all frames at one timestep. Stateless between calls."""

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release's root. CheckpointMismatch; Unsupported for the attention backend."""
        return _loaded(cls, root, placement, attention)

    @property
    def sees_image(self) -> bool:
        """Whether the model is one for image-to-video."""
        return self._model.config.image_dim is not None

    @torch.no_grad()
    def forward(
        self,
        video_BCTHW: torch.Tensor,
        timestep: float,
        context_BLD: torch.Tensor,
        known_BCTHW: torch.Tensor | None = None,
        image_BID: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One evaluation; B is 1.

        Args:
            video_BCTHW: noisy latents, normalised.
            timestep: 0 … 1000.
            context_BLD: every text row, padding included.
            known_BCTHW: of image-to-video: four mask channels, then the normalised latents of the known frames.
            image_BID: of image-to-video: the image encoder's rows.

        Returns:
            Velocity [1, C, T, H, W] fp32.

        Raises:
            Unsupported: the clip exceeds the checkpoint's rope table.
        """
        device, dtype = self._placement.device, self._placement.dtype
        parts = [video_BCTHW] if known_BCTHW is None else [video_BCTHW, known_BCTHW]
        hidden_BCTHW = torch.cat(parts, dim=1).to(device, dtype)
        wan.refuse_beyond_rope(self._model, hidden_BCTHW)
        (velocity_BCTHW,) = self._model(
            hidden_states=hidden_BCTHW,
            timestep=torch.tensor([timestep], device=device),
            encoder_hidden_states=context_BLD.to(device, torch.float32),
            encoder_hidden_states_image=None if image_BID is None else image_BID.to(device, dtype),
            return_dict=False,
        )
        result_BCTHW: torch.Tensor = velocity_BCTHW.float()
        return result_BCTHW


class ForcingDiT(wan.WanDiT[V2Transformer]):
    """Predicts the flow velocity of a clip whose latent frames have timesteps of their own.

    One forward at a time; nothing is kept between them.
    """

    def __init__(self, model: V2Transformer, placement: Placement, *, weights: str) -> None:
        """As `WanDiT`; the model's blocks are made to take a timestep per frame."""
        super().__init__(model, placement, weights=weights)
        for block in model.blocks:
            block.attn1.set_processor(CausalSelfAttention(model.causality))
        modulate_by_frame(model)

    @classmethod
    def load(cls, root: Path, placement: Placement, attention: str = "auto") -> Self:
        """From a release's root. CheckpointMismatch; Unsupported for the attention backend."""
        return _loaded(cls, root, placement, attention)

    @torch.no_grad()
    def forward(
        self,
        video_BCTHW: torch.Tensor,
        timesteps_T: Sequence[float],
        context_BLD: torch.Tensor,
        *,
        block_frames: int = 1,
        fps: int = 24,
    ) -> torch.Tensor:
        """One evaluation; B is 1.

        Args:
            video_BCTHW: latents, normalised, of T frames.
            timesteps_T: of each frame, 0 … 1000.
            context_BLD: every text row, padding included.
            block_frames: above 1, frames see their own block of so many and the blocks before; at 1 all see all.
            fps: frame rate, which some checkpoints are told.

        Returns:
            Velocity [1, C, T, H, W] fp32.

        Raises:
            Unsupported: the clip exceeds the checkpoint's rope table.
        """
        device, model = self._placement.device, self._model
        hidden_BCTHW = video_BCTHW.to(device, self._placement.dtype)
        wan.refuse_beyond_rope(model, hidden_BCTHW)
        _, patch_h, patch_w = model.config.patch_size
        per_frame = (hidden_BCTHW.shape[3] // patch_h) * (hidden_BCTHW.shape[4] // patch_w)
        model.causality.tokens = block_frames * per_frame if block_frames > 1 else None
        model.slow = fps == SLOW_FPS
        (velocity_BCTHW,) = model(
            hidden_states=hidden_BCTHW,
            timestep=torch.tensor([float(timestep) for timestep in timesteps_T], device=device),
            encoder_hidden_states=context_BLD.to(device, torch.float32),
            return_dict=False,
        )
        result_BCTHW: torch.Tensor = velocity_BCTHW.float()
        return result_BCTHW


def _loaded(kind: Callable[..., D], root: Path, placement: Placement, attention: str) -> D:
    backend = pick(attention, placement.device)
    folder, stored_as = layout(root)
    model = on_meta(root)
    wan.place_rope(model, placement.device)
    load_strict(
        model,
        folder,
        device=placement.device,
        dtype_of=lambda name: wan.dtype_of(placement, name),
        stored_as=stored_as,
    )
    dit = kind(model, placement, weights=fingerprint(folder))
    model.set_attention_backend(backend)
    return dit


def layout(root: Path) -> tuple[Path, Callable[[str], str]]:
    """The DiT's folder in a release, and how a parameter is called there."""
    folder = root / "transformer"
    return (folder, str) if folder.is_dir() else (root, wan.original_name)


def on_meta(root: Path) -> V2Transformer:
    """The architecture that a release's configuration describes, without weights. CheckpointMismatch."""
    folder, stored_as = layout(root)
    file = folder / "config.json"
    return on_meta_of(read_config(file), str(file), original=stored_as is wan.original_name)


def on_meta_of(config: Mapping[str, Any], file: str, *, original: bool) -> V2Transformer:
    """The same from the configuration itself; `file` is for messages."""
    if original:
        options = wan.original_options(config, file)
        if config.get("model_type") == "i2v":
            width = options["num_attention_heads"] * options["attention_head_dim"]
            options |= {"image_dim": int(config.get("img_dim", 1280)), "added_kv_proj_dim": width}
    else:
        options = known_arguments(WanTransformer3DModel, config)
    try:
        with torch.device("meta"):
            return V2Transformer(options, told_rate=bool(config.get("inject_sample_info", False)))
    except (TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{file} has an unusable number ({error}).") from error
