"""Toy checkpoints of SkyReels V2 in both of the release's layouts.

original    config.json + safetensors    google/umt5-xxl/    models_t5_….pth    Wan2.1_VAE.pth    models_clip_….pth
library's   transformer/  text_encoder/  tokenizer/  vae/  image_encoder/
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from transformers import CLIPVisionConfig

from components import vision
from components.dit import v2, wan
from components.tiny import avatar, original, parts, r2v
from components.tiny.release import TinySizes, as_json, write_release
from components.tiny.tokenizer import write_tokenizer
from components.tiny.weights import fill

RECIPE = 1  # raised whenever the bytes written change
_SHARDS = 2


def write_t2v(root: Path, *, seed: int = 0, sizes: TinySizes | None = None, library: bool = False) -> None:
    """Text-to-video to `root`, as `write_release`; in the library's layout or the original one. FileExistsError."""
    _write(root, "t2v", seed, sizes, library=library)


def write_i2v(root: Path, *, seed: int = 0, sizes: TinySizes | None = None, library: bool = False) -> None:
    """Image-to-video, the same."""
    _write(root, "i2v", seed, sizes, library=library)


def write_df(root: Path, *, seed: int = 0, sizes: TinySizes | None = None, library: bool = False) -> None:
    """Diffusion forcing, the same."""
    _write(root, "df", seed, sizes, library=library)


def _write(root: Path, kind: str, seed: int, sizes: TinySizes | None, *, library: bool) -> None:
    sizes = sizes or TinySizes()
    name = f"v2-{kind}{'-diffusers' if library else ''}"
    inner = _write_library if library else _write_original
    write_release(root, name, RECIPE, seed, sizes, partial(inner, kind=kind, seed=seed, sizes=sizes))


def _model(kind: str, sizes: TinySizes, seed: int) -> tuple[dict[str, object], v2.V2Transformer]:
    """The original configuration, and the model filled."""
    image = kind == "i2v"
    config = original.wan_config(sizes, "i2v" if image else "t2v", in_dim=36 if image else 16)
    # As in the release's 1.3B checkpoint of diffusion forcing, which alone is told the frame rate.
    config["inject_sample_info"] = kind == "df"
    if image:
        config["img_dim"] = avatar.IMAGE_DIM
    model = v2.on_meta_of(config, "config.json", original=True)
    fill(model, seed)
    return config, model


def _write_original(root: Path, *, kind: str, seed: int, sizes: TinySizes) -> None:
    original.write_text_encoder(root, seed)
    original.write_vae(root, seed, sizes.vae_width)
    if kind == "i2v":
        avatar.write_vision(root / vision.FILE, seed)
    config, model = _model(kind, sizes, seed)
    (root / "config.json").write_text(as_json(config), encoding="utf-8")
    state = {wan.original_name(name): tensor for name, tensor in model.state_dict().items()}
    original.write_sharded(state, root, _SHARDS)


def _write_library(root: Path, *, kind: str, seed: int, sizes: TinySizes) -> None:
    vocabulary = write_tokenizer(root / "tokenizer")
    r2v.save_text_encoder(parts.text_encoder(vocabulary, seed), root / "text_encoder")
    parts.vae(sizes.vae_width, seed).save_pretrained(root / "vae")
    if kind == "i2v":
        model = avatar.vision_model(seed)
        folder = root / vision.FOLDER
        config: CLIPVisionConfig = model.config
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        state = {vision.library_name(name): tensor for name, tensor in model.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings, transformer = _model(kind, sizes, seed)
    folder = root / "transformer"
    folder.mkdir()
    kept = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    told = {"_class_name": "SkyReelsV2Transformer3DModel", "inject_sample_info": settings["inject_sample_info"]}
    (folder / "config.json").write_text(as_json(told | kept), encoding="utf-8")
    original.write_sharded(transformer.state_dict(), folder, _SHARDS)
