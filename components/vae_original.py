"""The Wan 2.1 VAE in the original layout: one file, other names, no configuration.

What the released architecture leaves open, its first width and the number of residual blocks per stage, is read off the
file's shapes; every key and shape is then compared with that architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from components.checkpoints import fill_strict, read_pth
from components.device import VAE_DTYPE
from components.errors import CheckpointMismatch

FILE = "Wan2.1_VAE.pth"

_STAGES = 4
_ENDS = (
    ("quant_conv.", "conv1."),
    ("post_quant_conv.", "conv2."),
    ("encoder.conv_in.", "encoder.conv1."),
    ("decoder.conv_in.", "decoder.conv1."),
    ("encoder.norm_out.", "encoder.head.0."),
    ("decoder.norm_out.", "decoder.head.0."),
    ("encoder.conv_out.", "encoder.head.2."),
    ("decoder.conv_out.", "decoder.head.2."),
)
_RESIDUAL = (
    ("norm1.", "residual.0."),
    ("conv1.", "residual.2."),
    ("norm2.", "residual.3."),
    ("conv2.", "residual.6."),
    ("conv_shortcut.", "shortcut."),
)
_PLACE = re.compile(r"(encoder|decoder)\.(mid_block|down_blocks|up_blocks)\.(\D*)(\d+)\.(.*)")
_UP = re.compile(r"(resnets|upsamplers)\.(\d+)\.(.*)")


def original_name(name: str, blocks: int) -> str:
    """A parameter's name in the file, from the library's; `blocks` are the residual blocks of an encoder's stage."""
    for ours, theirs in _ENDS:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    match = _PLACE.fullmatch(name)
    if match is None:
        return name
    side, part, kind, index, rest = match[1], match[2], match[3], int(match[4]), match[5]
    if part == "mid_block":
        place = f"middle.{1 if kind == 'attentions.' else 2 * index}"
    elif part == "down_blocks":
        place = f"downsamples.{index}"
    else:
        inner = _UP.fullmatch(rest)
        if inner is None:
            return name
        # A stage of the decoder has one residual block more, then its upsampler.
        within = int(inner[2]) if inner[1] == "resnets" else blocks + 1
        place, rest = f"upsamples.{index * (blocks + 2) + within}", inner[3]
    for ours, theirs in _RESIDUAL:
        if rest.startswith(ours):
            rest = theirs + rest.removeprefix(ours)
            break
    return f"{side}.{place}.{rest}"


def architecture(tensors: Mapping[str, torch.Tensor], file: Path) -> tuple[AutoencoderKLWan, int]:
    """The model on the meta device, and its `blocks`. CheckpointMismatch when the file is of no such VAE."""
    first = tensors.get("encoder.conv1.weight")
    places = {name.split(".")[2] for name in tensors if name.startswith("encoder.downsamples.")}
    blocks, odd = divmod(len(places) - (_STAGES - 1), _STAGES)
    if first is None or first.ndim < 1 or blocks < 1 or odd:
        raise CheckpointMismatch(f"{file} does not hold a Wan 2.1 VAE in the original layout.")
    with torch.device("meta"):
        return AutoencoderKLWan(base_dim=first.shape[0], num_res_blocks=blocks), blocks


def load(file: Path, device: torch.device) -> AutoencoderKLWan:
    """The model on its device. CheckpointMismatch."""
    tensors = read_pth(file)
    model, blocks = architecture(tensors, file)
    fill_strict(
        model,
        tensors,
        file,
        device=device,
        dtype_of=lambda _: VAE_DTYPE,
        stored_as=lambda name: original_name(name, blocks),
    )
    return model
