"""UMT5's encoder in the original layout: one file, other names, no configuration.

Its numbers are read off the file's shapes; every key and shape is then compared with that architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import UMT5Config, UMT5EncoderModel

from components.checkpoints import fill_strict, read_pth
from components.device import Placement
from components.errors import CheckpointMismatch

FILE = "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER = "google/umt5-xxl"

_LAYER = r"^encoder\.block\.(\d+)\.layer\."
_NAMES = (
    (r"^shared\.", "token_embedding."),
    (r"^encoder\.final_layer_norm\.", "norm."),
    (_LAYER + r"0\.SelfAttention\.relative_attention_bias\.", r"blocks.\1.pos_embedding.embedding."),
    (_LAYER + r"0\.SelfAttention\.([qkvo])\.", r"blocks.\1.attn.\2."),
    (_LAYER + r"0\.layer_norm\.", r"blocks.\1.norm1."),
    (_LAYER + r"1\.layer_norm\.", r"blocks.\1.norm2."),
    (_LAYER + r"1\.DenseReluDense\.wi_0\.", r"blocks.\1.ffn.gate.0."),
    (_LAYER + r"1\.DenseReluDense\.wi_1\.", r"blocks.\1.ffn.fc1."),
    (_LAYER + r"1\.DenseReluDense\.wo\.", r"blocks.\1.ffn.fc2."),
)


def original_name(name: str) -> str:
    """A parameter's name in the file, from the library's."""
    for pattern, original in _NAMES:
        name = re.sub(pattern, original, name)
    return name


def architecture(tensors: Mapping[str, torch.Tensor], file: Path) -> UMT5EncoderModel:
    """The model on the meta device. CheckpointMismatch when the file is of no UMT5 encoder."""
    try:
        vocabulary, width = tensors["token_embedding.weight"].shape
        buckets, heads = tensors["blocks.0.pos_embedding.embedding.weight"].shape
        inner, _ = tensors["blocks.0.attn.q.weight"].shape
        hidden, _ = tensors["blocks.0.ffn.fc1.weight"].shape
    except (KeyError, ValueError) as error:
        raise CheckpointMismatch(f"{file} does not hold UMT5's encoder in the original layout.") from error
    layers = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=inner // heads,
        d_ff=hidden,
        num_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        return UMT5EncoderModel(config)


def load(file: Path, placement: Placement, tied: Mapping[str, str]) -> UMT5EncoderModel:
    """The model on its device. CheckpointMismatch."""
    tensors = read_pth(file)
    model = architecture(tensors, file)
    fill_strict(
        model,
        tensors,
        file,
        device=placement.device,
        dtype_of=lambda _: placement.dtype,
        tied=tied,
        stored_as=original_name,
    )
    return model
