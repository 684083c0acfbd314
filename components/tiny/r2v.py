"""A toy reference-to-video checkpoint in the release's diffusers layout.

    model_index.json  scheduler/  text_encoder/  tokenizer/  transformer/  vae/

Real classes, toy widths; the constants that other code relies on (16 latent channels with the real means and
deviations, 512 text rows, VAE strides) are the release's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import UMT5EncoderModel

from components.text import TIED
from components.tiny import parts
from components.tiny.release import TinySizes, as_json, write_release
from components.tiny.tokenizer import write_tokenizer
from components.tiny.weights import fill

RECIPE = 2  # raised whenever the bytes written change
_FLOW_SHIFT = 5.0


def write_r2v(root: Path, *, seed: int = 0, sizes: TinySizes | None = None) -> None:
    """Writes the checkpoint to `root`, as `write_release`; the same bytes for the same seed and sizes.

    Raises:
        FileExistsError: `root` is something else, perhaps real weights; it is never touched.
    """
    sizes = sizes or TinySizes()
    write_release(root, "r2v", RECIPE, seed, sizes, lambda building: _write(building, seed, sizes))


def _write(root: Path, seed: int, sizes: TinySizes) -> None:
    vocabulary = write_tokenizer(root / "tokenizer")
    with torch.device("meta"):
        transformer = WanTransformer3DModel(
            num_attention_heads=sizes.heads,
            attention_head_dim=parts.HEAD_DIM,
            text_dim=parts.TEXT_DIM,
            ffn_dim=2 * sizes.heads * parts.HEAD_DIM,
            num_layers=sizes.layers,
        )
    fill(transformer, seed)
    save_text_encoder(parts.text_encoder(vocabulary, seed), root / "text_encoder")
    transformer.save_pretrained(root / "transformer")
    parts.vae(sizes.vae_width, seed).save_pretrained(root / "vae")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=_FLOW_SHIFT
    ).save_pretrained(root / "scheduler")
    index = {
        "_class_name": "WanPipeline",
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (root / "model_index.json").write_text(as_json(index), encoding="utf-8")


def save_text_encoder(model: UMT5EncoderModel, folder: Path) -> None:
    """As transformers saves it: the embedding under one of its two names."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    stored = {name: tensor for name, tensor in model.state_dict().items() if name not in TIED}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
