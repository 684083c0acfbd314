"""Images as the DiTs see them: CLIP ViT-H/14, all tokens of the second-to-last block.

Original releases hold it in one file with a text tower that nothing uses; the text tower is left out by name, so that
any other key that does not fit is still an error. Queries, keys and values are one matrix there and three here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from torch.nn.functional import interpolate
from transformers import CLIPVisionConfig, CLIPVisionModel

from components.checkpoints import fill_strict, known_arguments, load_strict, read_config, read_pth
from components.device import Placement
from components.errors import CheckpointMismatch
from components.values import ImageTokens, Pixels

FOLDER = "image_encoder"
FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_VISUAL = "visual."
_UNUSED = ("textual.", "log_scale")
_HEAD_DIM = 80  # of ViT-H; the file does not say how many heads there are

_NAMES = (
    # The release's and the library's, by parts; `{}` stands for a block's number.
    ("cls_embedding", "embeddings.class_embedding"),
    ("patch_embedding.", "embeddings.patch_embedding."),
    ("pos_embedding", "embeddings.position_embedding.weight"),
    ("pre_norm.", "pre_layrnorm."),
    ("post_norm.", "post_layernorm."),
    ("transformer.{}.norm1.", "encoder.layers.{}.layer_norm1."),
    ("transformer.{}.norm2.", "encoder.layers.{}.layer_norm2."),
    ("transformer.{}.attn.proj.", "encoder.layers.{}.self_attn.out_proj."),
    ("transformer.{}.mlp.0.", "encoder.layers.{}.mlp.fc1."),
    ("transformer.{}.mlp.2.", "encoder.layers.{}.mlp.fc2."),
)
_PART = re.compile(r"^encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)$")
_FUSED = re.compile(r"^transformer\.(\d+)\.attn\.to_qkv\.(weight|bias)$")


class VisionEncoder:
    """CLIP's vision tower. Stateless between calls."""

    def __init__(self, model: CLIPVisionModel, placement: Placement) -> None:
        """Adopts a model that is on its device already."""
        self._model = model
        self._placement = placement

    @classmethod
    def load(cls, root: Path, placement: Placement) -> Self:
        """From a release's CLIP file, or its `image_encoder/`. CheckpointMismatch."""
        if (folder := root / FOLDER).is_dir():
            model = library_model(folder)
            load_strict(
                model,
                folder,
                device=placement.device,
                dtype_of=lambda _: placement.dtype,
                stored_as=library_name,
            )
            return cls(with_positions(model, placement.device), placement)
        model, tensors = architecture(root)
        fill_strict(model, tensors, root / FILE, device=placement.device, dtype_of=lambda _: placement.dtype)
        return cls(with_positions(model, placement.device), placement)

    def encode(self, frame: Pixels) -> ImageTokens:
        """The first of some frames."""
        return ImageTokens(self.embed(self.preprocess(frame.pixels_CFYX[None, :, 0])))

    def preprocess(self, image_BCYX: torch.Tensor) -> torch.Tensor:
        """[-1, 1] of any size to the model's square, bicubic without antialiasing, aspect not kept; normalised."""
        side = int(self._model.config.image_size)
        square_BCYX = interpolate(image_BCYX.float(), size=(side, side), mode="bicubic", align_corners=False)
        mean, std = (torch.tensor(row, device=square_BCYX.device).view(1, 3, 1, 1) for row in (_MEAN, _STD))
        return (square_BCYX * 0.5 + 0.5 - mean) / std

    @torch.no_grad()
    def embed(self, pixels_BCYX: torch.Tensor) -> torch.Tensor:
        """Preprocessed images to the rows of the second-to-last block, [B, I, D]."""
        model = self._model
        rows_BID: torch.Tensor = model.pre_layrnorm(
            model.embeddings(pixels_BCYX.to(self._placement.device, self._placement.dtype))
        )
        for layer in model.encoder.layers[:-1]:
            rows_BID = layer(rows_BID, None)
        return rows_BID


def library_model(folder: Path) -> CLIPVisionModel:
    """The architecture that a folder in the library's layout describes, on the meta device. CheckpointMismatch."""
    config = CLIPVisionConfig(**known_arguments(CLIPVisionConfig, read_config(folder / "config.json")))
    with torch.device("meta"):
        return CLIPVisionModel(config)


def library_name(name: str) -> str:
    """A parameter's name in the library's layout."""
    return f"vision_model.{name}"


def architecture(root: Path) -> tuple[CLIPVisionModel, dict[str, torch.Tensor]]:
    """A release's model on the meta device, and its tensors by the model's names, memory-mapped. CheckpointMismatch."""
    file = root / FILE
    tensors = read_pth(file)
    visual = {name.removeprefix(_VISUAL): tensor for name, tensor in tensors.items() if not name.startswith(_UNUSED)}
    return on_meta(visual, file), rearranged(visual)


def on_meta(visual: Mapping[str, torch.Tensor], file: Path, heads: int | None = None) -> CLIPVisionModel:
    """The architecture that a file's shapes describe. CheckpointMismatch."""
    try:
        width, _, patch, _ = visual["patch_embedding.weight"].shape
        positions = visual["pos_embedding"].shape[-2]
        inner = visual["transformer.0.mlp.0.weight"].shape[0]
        out = visual["head"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointMismatch(f"{file} holds no CLIP vision tower of the released kind ({error}).") from error
    layers = 1 + max(int(name.split(".")[1]) for name in visual if name.startswith("transformer."))
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        projection_dim=out,
        num_hidden_layers=layers,
        num_attention_heads=heads or max(1, width // _HEAD_DIM),
        image_size=patch * round((positions - 1) ** 0.5),
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
    )
    with torch.device("meta"):
        return CLIPVisionModel(config)


def rearranged(visual: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the library's names; fused queries, keys and values in thirds. The projection of the class token goes."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in visual.items():
        if name == "head":
            continue
        if fused := _FUSED.match(name):
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"encoder.layers.{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = third
            continue
        inner = _renamed(name, dict(_NAMES))
        if inner == "embeddings.class_embedding":
            renamed[inner] = tensor.flatten()
        elif inner == "embeddings.position_embedding.weight":
            renamed[inner] = tensor.flatten(0, -2)
        else:
            renamed[inner] = tensor
    return renamed


def fused(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of `rearranged`, without the class token's projection: as the release stores a vision tower."""
    names = {ours: theirs for theirs, ours in _NAMES}
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        part = _PART.match(name)
        if part is None:
            outer = _renamed(name, names)
            extra = {"cls_embedding": 2, "pos_embedding": 1}.get(outer, 0)  # leading axes of one
            stored[outer] = tensor.reshape((1,) * extra + tuple(tensor.shape))
        elif part[2] == "q":
            thirds = [state[f"encoder.layers.{part[1]}.self_attn.{which}_proj.{part[3]}"] for which in "qkv"]
            stored[f"transformer.{part[1]}.attn.to_qkv.{part[3]}"] = torch.cat(thirds)
    return stored


def _renamed(name: str, names: Mapping[str, str]) -> str:
    number = next(iter(re.findall(r"\.(\d+)\.", name)), "")
    for old, new in names.items():
        if name.startswith(prefix := old.format(number)):
            return new.format(number) + name.removeprefix(prefix)
    return name


def with_positions(model: CLIPVisionModel, device: torch.device) -> CLIPVisionModel:
    """Gives the model the one buffer that is computed and not stored."""
    embeddings = model.embeddings
    embeddings.register_buffer(
        "position_ids", torch.arange(embeddings.num_positions, device=device)[None], persistent=False
    )
    return model
