"""Toy checkpoints of SkyReels V1, with what its DiT is a part of in the same folder:

config.json + safetensors        the DiT, as the release has it at its root
text_encoder/  tokenizer/  text_encoder_2/  tokenizer_2/  vae/  scheduler/  model_index.json        of HunyuanVideo
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel

from components.tiny.hunyuan_text import POOLED_DIM, TEXT_DIM, write_text_encoders
from components.tiny.parts import HEAD_DIM, LOGVAR
from components.tiny.release import TinySizes, as_json, write_release
from components.tiny.weights import fill

RECIPE = 1  # raised whenever the bytes written change
_CHANNELS = 16
_FLOW_SHIFT = 7.0


def write_v1_t2v(root: Path, *, seed: int = 0, sizes: TinySizes | None = None) -> None:
    """Writes the checkpoint to `root`, as `write_release`; the same bytes for the same seed and sizes.

    Raises:
        FileExistsError: `root` is something else; it is never touched.
    """
    _write(root, "v1-t2v", _CHANNELS, seed, sizes or TinySizes())


def write_v1_i2v(root: Path, *, seed: int = 0, sizes: TinySizes | None = None) -> None:
    """The same of the model that takes a first frame."""
    _write(root, "v1-i2v", 2 * _CHANNELS, seed, sizes or TinySizes())


def _write(root: Path, model: str, in_channels: int, seed: int, sizes: TinySizes) -> None:
    def write(building: Path) -> None:
        write_text_encoders(building, seed)
        _vae(sizes.vae_width, seed).save_pretrained(building / "vae")
        FlowMatchEulerDiscreteScheduler(shift=_FLOW_SHIFT).save_pretrained(building / "scheduler")
        (building / "model_index.json").write_text(as_json(_INDEX), encoding="utf-8")
        _transformer(in_channels, sizes, seed).save_pretrained(building)

    write_release(root, model, RECIPE, seed, sizes, write)


def _transformer(in_channels: int, sizes: TinySizes, seed: int) -> HunyuanVideoTransformer3DModel:
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel(
            in_channels=in_channels,
            out_channels=_CHANNELS,
            num_attention_heads=sizes.heads,
            attention_head_dim=HEAD_DIM,
            num_layers=sizes.layers,
            num_single_layers=sizes.layers,
            num_refiner_layers=1,
            text_embed_dim=TEXT_DIM,
            pooled_projection_dim=POOLED_DIM,
            rope_axes_dim=(4, 10, 10),
        )
    fill(model, seed)
    return model


def _vae(width: int, seed: int) -> AutoencoderKLHunyuanVideo:
    with torch.device("meta"):
        model = AutoencoderKLHunyuanVideo(
            block_out_channels=(width, width, 2 * width, 2 * width), layers_per_block=1, norm_num_groups=2
        )
    fill(model, seed)
    with torch.no_grad():
        model.quant_conv.bias[_CHANNELS:] += LOGVAR
    return model


_INDEX = {
    "_class_name": "HunyuanVideoPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "LlamaModel"],
    "text_encoder_2": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "LlamaTokenizerFast"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
}
