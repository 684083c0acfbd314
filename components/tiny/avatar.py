"""A toy checkpoint of the talking avatar in the release's original layout.

config.json + safetensors    models_clip_….pth    chinese-wav2vec2-base/
google/umt5-xxl/    models_t5_umt5-xxl-enc-bf16.pth    Wan2.1_VAE.pth
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, Wav2Vec2Config, Wav2Vec2Model

from components import audio, vision
from components.dit import avatar, wan
from components.tiny import original
from components.tiny.release import TinySizes, as_json, write_release
from components.tiny.weights import fill

RECIPE = 1  # raised whenever the bytes written change
_SHARDS = 2
IMAGE_DIM = 160  # two heads
_AUDIO_DIM = 16
_AUDIO_LAYERS = 2


def write_avatar(root: Path, *, seed: int = 0, sizes: TinySizes | None = None) -> None:
    """Writes the checkpoint to `root`, as `write_release`; the same bytes for the same seed and sizes.

    Raises:
        FileExistsError: `root` is something else; it is never touched.
    """
    sizes = sizes or TinySizes()
    write_release(root, "avatar", RECIPE, seed, sizes, lambda building: _write(building, seed, sizes))


def _write(root: Path, seed: int, sizes: TinySizes) -> None:
    original.write_text_encoder(root, seed)
    original.write_vae(root, seed, sizes.vae_width)
    _write_audio(root / audio.FOLDER, seed)
    write_vision(root / vision.FILE, seed)
    (root / "config.json").write_text(as_json(_config(sizes)), encoding="utf-8")
    model = avatar.on_meta(root)
    fill(model, seed)
    state = {wan.original_name(name): tensor for name, tensor in model.state_dict().items()}
    original.write_sharded(state, root, _SHARDS)


def _write_audio(folder: Path, seed: int) -> None:
    """As transformers saves it."""
    config = Wav2Vec2Config(
        hidden_size=_AUDIO_DIM,
        num_hidden_layers=_AUDIO_LAYERS,
        num_attention_heads=2,
        intermediate_size=2 * _AUDIO_DIM,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    with torch.device("meta"):
        model = Wav2Vec2Model(config)
    fill(model, seed)
    folder.mkdir()
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        as_json(
            {
                "do_normalize": True,
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "feature_size": 1,
                "padding_value": 0,
                "return_attention_mask": False,
                "sampling_rate": audio.SAMPLE_RATE,
            }
        ),
        encoding="utf-8",
    )
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})


def write_vision(file: Path, seed: int) -> None:
    """In fp16, with a stump of the text tower that the release has and nothing uses; 257 tokens as there."""
    model = vision_model(seed)
    generator = torch.Generator().manual_seed(seed)
    state = {f"visual.{name}": tensor for name, tensor in vision.fused(model.state_dict()).items()}
    state["visual.head"] = torch.randn((IMAGE_DIM, 16), generator=generator) / IMAGE_DIM**0.5
    state["textual.head.0.weight"] = torch.randn((16, 16), generator=generator) / 4
    state["log_scale"] = torch.tensor(2.6592)
    torch.save({name: tensor.to(torch.float16) for name, tensor in state.items()}, file)


def vision_model(seed: int) -> CLIPVisionModel:
    """The vision tower."""
    config = CLIPVisionConfig(
        hidden_size=IMAGE_DIM,
        intermediate_size=2 * IMAGE_DIM,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=224,
        patch_size=14,
        hidden_act="gelu",
    )
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    fill(model, seed)
    return model


def _config(sizes: TinySizes) -> dict[str, Any]:
    """As the original code saves it, and the sizes that it fixes in code."""
    return original.wan_config(sizes, "i2v", in_dim=36) | {
        "audio_window": 5,
        "intermediate_dim": 16,
        "output_dim": 16,
        "context_tokens": 4,
        "vae_scale": 4,
        "norm_input_visual": True,
        "norm_output_audio": True,
        "audio_blocks": _AUDIO_LAYERS,
        "audio_channels": _AUDIO_DIM,
        "img_dim": IMAGE_DIM,
    }
