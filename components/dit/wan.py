"""What the Wan DiTs have in common: precisions, and the names and numbers of the original checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from components.device import Placement
from components.errors import CheckpointMismatch, Unsupported

_FP32_PARTS = frozenset(
    {
        *("time_embedder", "time_proj", "scale_shift_table", "norm1", "norm2", "norm3"),
        *("fps_embedding", "fps_projection"),  # part of the modulation too
    }
)
"""Parts of parameter names that stay fp32 beside bf16 blocks: the modulation from the timestep on, and the norms.
The library's list lacks `time_proj`: its six modulation vectors would be rounded to bf16 before every block."""

_OUTER_NAMES = (
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
    (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
    (r"^fps_projection\.net\.0\.proj\.", "fps_projection.0."),
    (r"^fps_projection\.net\.2\.", "fps_projection.2."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
)
_BLOCK_NAMES = (
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.norm2\.", ".norm3."),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
)
"""The library's names → the original ones; each rule is tried on every name of its part."""


M = TypeVar("M", bound=WanTransformer3DModel)


class WanDiT(Generic[M]):
    """A DiT on its device. Its families add how they are loaded and what one forward is."""

    def __init__(self, model: M, placement: Placement, *, weights: str) -> None:
        """Wraps a model that is already on its device in its dtypes.

        Args:
            model: adopted; a hook is put on its text embedder.
            placement: the device and the blocks' dtype.
            weights: names the weights' content (`checkpoints.fingerprint`), for snapshots.
        """
        self._model = model
        self._placement = placement
        self.weights = weights
        model.condition_embedder.text_embedder.register_forward_pre_hook(to_weight_dtype)

    @property
    def model(self) -> M:
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
        """Width D of the text context."""
        return int(self._model.config.text_dim)


class PreciseTimesteps(torch.nn.Module):
    """The sinusoids of the timestep as the original models compute them, in fp64; the library's are fp32 throughout,
    which at t = 999 is off by 6e-5 and shows in the fifth digit of the velocity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._half = channels // 2

    def forward(self, timestep: torch.Tensor) -> torch.Tensor:
        """[N] → [N, channels] fp32: cosines, then sines."""
        places = torch.arange(self._half, dtype=torch.float64, device=timestep.device)
        angles = timestep.double()[:, None] * torch.pow(10000.0, -places / self._half)
        return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def dtype_of(placement: Placement, name: str) -> torch.dtype:
    """The dtype a parameter is kept in, by the library's name."""
    return placement.dtype if _FP32_PARTS.isdisjoint(name.split(".")) else torch.float32


def to_weight_dtype(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A pre-hook for the text embedder. The library casts the modulation to the context's dtype, so the context goes in
    as fp32 and becomes the blocks' dtype only here, behind that cast.
    """
    return (args[0].to(module.linear_1.weight.dtype),)


def original_name(name: str) -> str:
    """A parameter's name in the original checkpoints, from the library's."""
    for pattern, original in _BLOCK_NAMES if name.startswith("blocks.") else _OUTER_NAMES:
        name = re.sub(pattern, original, name)
    return name


def original_options(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The library's arguments from an original `config.json`. CheckpointMismatch when one is missing or unusable."""
    try:
        heads, width = int(config["num_heads"]), int(config["dim"])
        options = {
            "patch_size": tuple(map(int, config.get("patch_size", (1, 2, 2)))),
            "num_attention_heads": heads,
            "attention_head_dim": width // heads,
            "in_channels": int(config["in_dim"]),
            "out_channels": int(config["out_dim"]),
            "text_dim": int(config.get("text_dim", 4096)),
            "freq_dim": int(config["freq_dim"]),
            "ffn_dim": int(config["ffn_dim"]),
            "num_layers": int(config["num_layers"]),
            "cross_attn_norm": bool(config.get("cross_attn_norm", True)),
            "eps": float(config["eps"]),
        }
    except KeyError as error:
        raise CheckpointMismatch(f"{file} lacks {error}, so it is no original Wan configuration.") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointMismatch(f"{file} has an unusable number ({error}).") from error
    if width % heads or not config.get("qk_norm", True):
        raise CheckpointMismatch(f"{file} describes another architecture than the released one.")
    return options


def place_rope(model: WanTransformer3DModel, device: torch.device) -> None:
    """Makes the rope's tables on the device: they are computed, not stored, so those on the meta device are empty."""
    options = model.config
    model.rope = WanRotaryPosEmbed(options.attention_head_dim, options.patch_size, options.rope_max_seq_len).to(device)


def refuse_beyond_rope(model: WanTransformer3DModel, hidden_BCTHW: torch.Tensor) -> None:
    """Unsupported when a side has more positions than the rope table."""
    options = model.config
    limit = int(options.rope_max_seq_len)
    sides = [side // patch for side, patch in zip(hidden_BCTHW.shape[2:], options.patch_size, strict=True)]
    if max(sides) > limit:
        raise Unsupported(
            f"The clip has {' × '.join(map(str, sides))} positions but this checkpoint's rope table ends at "
            f"{limit} per axis; ask for a shorter or smaller video."
        )
