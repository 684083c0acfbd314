"""A toy reference-to-video checkpoint in the release's diffusers layout.

    model_index.json  scheduler/  text_encoder/  tokenizer/  transformer/  vae/

Real classes, toy widths; the constants that other code relies on (16 latent channels with the real means and
deviations, 512 text rows, VAE strides) are the release's.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import UMT5Config, UMT5EncoderModel

from components.text import TIED
from components.tiny.tokenizer import write_tokenizer
from components.tiny.weights import fill

RECIPE = 2  # raised whenever the bytes written change
_STAMP = "tiny.json"
_TEXT_DIM = 32
_HEAD_DIM = 24
_FLOW_SHIFT = 5.0
_LOGVAR = -6.0  # mean log-variance of the VAE's posterior: references stay close to their means, as in the release


@dataclass(frozen=True, slots=True)
class TinySizes:
    """What may differ between toy checkpoints. Heads of 24 channels; the VAE's first width grows fourfold inside."""

    layers: int = 2
    heads: int = 4
    vae_width: int = 4


def write_r2v(root: Path, *, seed: int = 0, sizes: TinySizes | None = None) -> None:
    """Writes the checkpoint to `root`; does nothing where this very checkpoint lies already.

    The same bytes for the same seed and sizes. Atomic: it is built beside `root` and renamed, so readers see
    none or all of it, and several processes may write at once.

    Raises:
        FileExistsError: `root` is something else, perhaps real weights; it is never touched.
    """
    sizes = sizes or TinySizes()
    stamp = {"recipe": RECIPE, "model": "r2v", "seed": seed, **asdict(sizes)}
    if _is_written(root, stamp):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        _write(building, seed, sizes)
        (building / _STAMP).write_text(_json(stamp), encoding="utf-8")
        building.chmod(0o755)
        try:
            building.rename(root)
        except OSError:
            if not _is_written(root, stamp):  # else somebody was quicker
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _is_written(root: Path, stamp: dict[str, Any]) -> bool:
    if not root.exists() or not any(root.iterdir()):
        return False
    file = root / _STAMP
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == stamp:
        return True
    raise FileExistsError(f"{root} holds something else than this tiny checkpoint; remove it or choose another path.")


def _write(root: Path, seed: int, sizes: TinySizes) -> None:
    vocabulary = write_tokenizer(root / "tokenizer")
    with torch.device("meta"):
        text_encoder = UMT5EncoderModel(_text_config(vocabulary))
        transformer = WanTransformer3DModel(
            num_attention_heads=sizes.heads,
            attention_head_dim=_HEAD_DIM,
            text_dim=_TEXT_DIM,
            ffn_dim=2 * sizes.heads * _HEAD_DIM,
            num_layers=sizes.layers,
        )
        vae = AutoencoderKLWan(base_dim=sizes.vae_width, num_res_blocks=1)
    for module in (text_encoder, transformer, vae):
        fill(module, seed)
    with torch.no_grad():
        vae.quant_conv.bias[vae.config.z_dim :] += _LOGVAR
    _save_text_encoder(text_encoder, root / "text_encoder")
    transformer.save_pretrained(root / "transformer")
    vae.save_pretrained(root / "vae")
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
    (root / "model_index.json").write_text(_json(index), encoding="utf-8")


def _save_text_encoder(model: UMT5EncoderModel, folder: Path) -> None:
    """As transformers saves it: the embedding under one of its two names."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    stored = {name: tensor for name, tensor in model.state_dict().items() if name not in TIED}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def _text_config(vocabulary: int) -> UMT5Config:
    return UMT5Config(
        vocab_size=vocabulary, d_model=_TEXT_DIM, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0
    )


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2) + os.linesep
