"""Toy text encoder and VAE in the original layout, which the extension and the avatar share:

google/umt5-xxl/  models_t5_umt5-xxl-enc-bf16.pth  Wan2.1_VAE.pth
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from components import text_original, vae_original
from components.text import TIED
from components.tiny import parts
from components.tiny.parts import HEAD_DIM, TEXT_DIM
from components.tiny.release import TinySizes, as_json
from components.tiny.tokenizer import write_tokenizer


def write_text_encoder(root: Path, seed: int) -> None:
    """Tokenizer and encoder, in bf16."""
    vocabulary = write_tokenizer(root / text_original.TOKENIZER)
    state = parts.text_encoder(vocabulary, seed).state_dict()
    kept = {name: tensor.to(torch.bfloat16) for name, tensor in state.items() if name not in TIED}
    torch.save({text_original.original_name(name): tensor for name, tensor in kept.items()}, root / text_original.FILE)


def write_vae(root: Path, seed: int, width: int) -> None:
    """In fp32."""
    state = parts.vae(width, seed).state_dict()
    named = {vae_original.original_name(name, parts.VAE_BLOCKS): tensor for name, tensor in state.items()}
    torch.save(named, root / vae_original.FILE)


def write_sharded(state: Mapping[str, torch.Tensor], folder: Path, shards: int) -> None:
    """Safetensors under the library's file names, in so many files, with an index when they are several."""
    stem, names = "diffusion_pytorch_model", sorted(state)
    if shards == 1:
        save_file(dict(state), folder / f"{stem}.safetensors")
        return
    placed: dict[str, str] = {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: state[name] for name in names[number::shards]}
        save_file(part, folder / file)
        placed |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in state.values())}, "weight_map": placed}
    (folder / f"{stem}.safetensors.index.json").write_text(as_json(index), encoding="utf-8")


def wan_config(sizes: TinySizes, model_type: str, *, in_dim: int) -> dict[str, Any]:
    """A DiT's `config.json` as the original code saves it."""
    width = sizes.heads * HEAD_DIM
    return {
        "_class_name": "WanModel",
        "model_type": model_type,
        "patch_size": [1, 2, 2],
        "text_len": 512,
        "in_dim": in_dim,
        "dim": width,
        "ffn_dim": 2 * width,
        "freq_dim": 256,
        "text_dim": TEXT_DIM,
        "out_dim": 16,
        "num_heads": sizes.heads,
        "num_layers": sizes.layers,
        "window_size": [-1, -1],
        "qk_norm": True,
        "cross_attn_norm": True,
        "eps": 1e-06,
    }
