"""The toy components that several checkpoints share, seeded, under the library's names."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from transformers import UMT5Config, UMT5EncoderModel

from components.tiny.weights import fill

TEXT_DIM = 32
HEAD_DIM = 24
LOGVAR = -6.0  # mean log-variance of the VAE's posterior: references stay close to their means, as in the release
VAE_BLOCKS = 1  # residual blocks of an encoder's stage


def text_encoder(vocabulary: int, seed: int) -> UMT5EncoderModel:
    """UMT5's encoder of width TEXT_DIM."""
    config = UMT5Config(
        vocab_size=vocabulary, d_model=TEXT_DIM, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    fill(model, seed)
    return model


def vae(width: int, seed: int) -> AutoencoderKLWan:
    """The Wan 2.1 VAE with 16 latent channels and the release's means and deviations."""
    with torch.device("meta"):
        model = AutoencoderKLWan(base_dim=width, num_res_blocks=VAE_BLOCKS)
    fill(model, seed)
    with torch.no_grad():
        model.quant_conv.bias[model.config.z_dim :] += LOGVAR
    return model
