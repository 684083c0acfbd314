"""Original checkpoint names to the libraries' names, for goldens recorded under the original ones."""

import re
from collections.abc import Mapping

import torch

_UMT5 = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (
        r"^blocks\.(\d+)\.pos_embedding\.embedding\.",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.",
    ),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)

_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}


def umt5(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in _UMT5:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        renamed[name] = tensor
    return renamed


def wan_vae(state: Mapping[str, torch.Tensor], num_res_blocks: int) -> dict[str, torch.Tensor]:
    return {_vae_name(name, num_res_blocks): tensor for name, tensor in state.items()}


def _vae_name(name: str, num_res_blocks: int) -> str:
    if name.startswith("conv1."):
        return name.replace("conv1.", "quant_conv.")
    if name.startswith("conv2."):
        return name.replace("conv2.", "post_quant_conv.")
    side, rest = name.split(".", 1)
    for old, new in (("conv1.", "conv_in."), ("head.0.", "norm_out."), ("head.2.", "conv_out.")):
        if rest.startswith(old):
            return f"{side}.{new}{rest.removeprefix(old)}"
    part, index, rest = rest.split(".", 2)
    at = int(index)
    for old, new in _RESIDUAL.items():
        if rest.startswith(old + "."):
            rest = new + rest.removeprefix(old)
    if part == "middle":
        return f"{side}.mid_block." + (f"attentions.0.{rest}" if at == 1 else f"resnets.{at // 2}.{rest}")
    if part == "downsamples":
        return f"{side}.down_blocks.{at}.{rest}"
    stage, within = divmod(at, num_res_blocks + 2)  # n + 1 residual blocks, then an upsampler
    inner = f"resnets.{within}" if within <= num_res_blocks else "upsamplers.0"
    return f"{side}.up_blocks.{stage}.{inner}.{rest}"
