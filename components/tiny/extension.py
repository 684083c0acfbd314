"""A toy checkpoint of video extension and shot switching in the release's original layout.

google/umt5-xxl/  models_t5_umt5-xxl-enc-bf16.pth  Wan2.1_VAE.pth  transformer/  shot_transformer/
"""

from __future__ import annotations

from pathlib import Path

from components.dit import extension, wan
from components.tiny import original
from components.tiny.release import TinySizes, as_json, write_release
from components.tiny.weights import fill

RECIPE = 1  # raised whenever the bytes written change
_SHARDS = {"transformer": 1, "shot_transformer": 2}


def write_extension(root: Path, *, seed: int = 0, sizes: TinySizes | None = None) -> None:
    """Writes the checkpoint to `root`, as `write_release`; the same bytes for the same seed and sizes.

    Raises:
        FileExistsError: `root` is something else; it is never touched.
    """
    sizes = sizes or TinySizes()
    write_release(root, "extension", RECIPE, seed, sizes, lambda building: _write(building, seed, sizes))


def _write(root: Path, seed: int, sizes: TinySizes) -> None:
    original.write_text_encoder(root, seed)
    original.write_vae(root, seed, sizes.vae_width)
    for offset, (name, shards) in enumerate(_SHARDS.items()):
        folder = root / name
        folder.mkdir()
        config = original.wan_config(sizes, "t2v", in_dim=16)
        (folder / "config.json").write_text(as_json(config), encoding="utf-8")
        model = extension.on_meta_of(config, name)
        fill(model, seed + offset)
        state = {wan.original_name(key): tensor for key, tensor in model.state_dict().items()}
        original.write_sharded(state, folder, shards)
