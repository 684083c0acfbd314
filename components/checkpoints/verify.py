"""Whether a release on disk is whole and fits, from the files' headers: no weights are read, no device is needed.

Every part is compared key by key and shape by shape with the architecture that its own configuration describes, by the
same rules as when it is loaded. A part's problem does not hide another's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from components import audio, text, text_hunyuan, text_original, vae, vae_hunyuan, vae_original, vision
from components.checkpoints.headers import Entry
from components.checkpoints.pickled import describe, read_pth
from components.checkpoints.source import read_config
from components.checkpoints.weights import check_entries, check_strict
from components.dit import avatar, extension, hunyuan, reference, v2, wan
from components.errors import CheckpointMismatch


@dataclass(frozen=True, slots=True)
class Part:
    """One component of a release. `problem` is None when it is whole and fits."""

    name: str
    tensors: int = 0
    parameters: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `layout` names the kind of release."""

    layout: str
    parts: tuple[Part, ...]

    @property
    def whole(self) -> bool:
        return all(part.problem is None for part in self.parts)


Check = Callable[[Path], Mapping[str, Entry]]
"""Compares one part of the release at a root with its configuration; its tensors. CheckpointMismatch."""


def _reference_dit(root: Path) -> Mapping[str, Entry]:
    folder = root / "transformer"
    return check_strict(reference.on_meta(folder), folder)


def _text_encoder(root: Path) -> Mapping[str, Entry]:
    folder = root / "text_encoder"
    return check_strict(text.on_meta(folder), folder, tied=text.TIED)


def _vae(root: Path) -> Mapping[str, Entry]:
    folder = root / "vae"
    return check_strict(vae.on_meta(folder), folder)


def _tokenizer(root: Path) -> Mapping[str, Entry]:
    text.read_tokenizer(root / "tokenizer")
    return {}


def _extension_dit(root: Path) -> Mapping[str, Entry]:
    folder = root / "transformer"
    return check_strict(extension.on_meta(folder), folder, stored_as=wan.original_name)


def _shot_dit(root: Path) -> Mapping[str, Entry]:
    folder = root / "shot_transformer"
    return check_strict(extension.on_meta(folder), folder, stored_as=wan.original_name)


def _avatar_dit(root: Path) -> Mapping[str, Entry]:
    return check_strict(avatar.on_meta(root), root, stored_as=wan.original_name)


def _v2_dit(root: Path) -> Mapping[str, Entry]:
    folder, stored_as = v2.layout(root)
    return check_strict(v2.on_meta(root), folder, stored_as=stored_as)


def _library_vision_encoder(root: Path) -> Mapping[str, Entry]:
    folder = root / vision.FOLDER
    return check_strict(vision.library_model(folder), folder, stored_as=vision.library_name)


def _audio_encoder(root: Path) -> Mapping[str, Entry]:
    model, tensors = audio.architecture(root)
    entries = describe(root / audio.FOLDER, tensors)
    check_entries(model, entries, root / audio.FOLDER)
    return entries


def _vision_encoder(root: Path) -> Mapping[str, Entry]:
    model, tensors = vision.architecture(root)
    entries = describe(root / vision.FILE, tensors)
    check_entries(model, entries, root / vision.FILE)
    return entries


def original_text_encoder(root: Path) -> Mapping[str, Entry]:
    """UMT5 in the original layout, as several releases have it. CheckpointMismatch."""
    file = root / text_original.FILE
    model = text_original.architecture(read_pth(file), file)
    return check_strict(model, file, tied=text.TIED, stored_as=text_original.original_name)


def original_vae(root: Path) -> Mapping[str, Entry]:
    """The VAE in the original layout. CheckpointMismatch."""
    file = root / vae_original.FILE
    model, blocks = vae_original.architecture(read_pth(file), file)
    return check_strict(model, file, stored_as=lambda name: vae_original.original_name(name, blocks))


def original_tokenizer(root: Path) -> Mapping[str, Entry]:
    """UMT5's tokenizer in the original layout. CheckpointMismatch."""
    text.read_tokenizer(root / text_original.TOKENIZER)
    return {}


_V2_LIBRARY: Mapping[str, Check] = {
    "transformer": _v2_dit,
    "text_encoder": _text_encoder,
    "tokenizer": _tokenizer,
    "vae": _vae,
}
_V2_ORIGINAL: Mapping[str, Check] = {
    "config.json": _v2_dit,
    text_original.FILE: original_text_encoder,
    text_original.TOKENIZER: original_tokenizer,
    vae_original.FILE: original_vae,
}


def _hunyuan_dit(root: Path) -> Mapping[str, Entry]:
    return check_strict(hunyuan.on_meta(root), root)


def _llama(root: Path) -> Mapping[str, Entry]:
    folder = root / "text_encoder"
    return check_strict(text_hunyuan.llama_on_meta(folder), folder)


def _clip(root: Path) -> Mapping[str, Entry]:
    folder = root / "text_encoder_2"
    return check_strict(text_hunyuan.clip_on_meta(folder), folder, stored_as=text_hunyuan.clip_stored_as)


def _clip_tokenizer(root: Path) -> Mapping[str, Entry]:
    text_hunyuan.read_clip_tokenizer(root / "tokenizer_2")
    return {}


def _hunyuan_vae(root: Path) -> Mapping[str, Entry]:
    folder = root / "vae"
    return check_strict(vae_hunyuan.on_meta(folder), folder)


_V1 = "SkyReels V1"
_V1_DIT: Mapping[str, Check] = {"config.json": _hunyuan_dit}
_V1_BASE: Mapping[str, Check] = {
    "text_encoder": _llama,
    "text_encoder_2": _clip,
    "tokenizer": _tokenizer,
    "tokenizer_2": _clip_tokenizer,
    "vae": _hunyuan_vae,
}
LAYOUTS: Mapping[str, tuple[str, Mapping[str, Check]]] = {
    # name → what only this release has, of those that come after it, and its parts; "FILE: KEY" is a key of a JSON file
    _V1: ("text_encoder_2", {**_V1_DIT, **_V1_BASE}),
    "SkyReels V2 image-to-video (diffusers)": (
        vision.FOLDER,
        {**_V2_LIBRARY, vision.FOLDER: _library_vision_encoder},
    ),
    "SkyReels V2 (diffusers)": ("transformer/config.json: inject_sample_info", _V2_LIBRARY),
    "reference-to-video": (
        "text_encoder",
        {"transformer": _reference_dit, "text_encoder": _text_encoder, "tokenizer": _tokenizer, "vae": _vae},
    ),
    "video extension": (
        "shot_transformer",
        {
            "transformer": _extension_dit,
            "shot_transformer": _shot_dit,
            text_original.FILE: original_text_encoder,
            text_original.TOKENIZER: original_tokenizer,
            vae_original.FILE: original_vae,
        },
    ),
    "talking avatar": (
        audio.FOLDER,
        {
            "config.json": _avatar_dit,
            audio.FOLDER: _audio_encoder,
            vision.FILE: _vision_encoder,
            text_original.FILE: original_text_encoder,
            text_original.TOKENIZER: original_tokenizer,
            vae_original.FILE: original_vae,
        },
    ),
    "SkyReels V2 image-to-video": (vision.FILE, {**_V2_ORIGINAL, vision.FILE: _vision_encoder}),
    "SkyReels V2": (vae_original.FILE, _V2_ORIGINAL),
}


def verify(root: Path, base: Path | None = None) -> Report:
    """Checks a release; `base` holds the text encoders and the VAE of one that is a DiT alone.

    Raises:
        CheckpointMismatch: the folder is no release of a known layout.
    """
    if base is not None:
        of_base = (_part(name, check, base) for name, check in _V1_BASE.items())
        return Report(_V1, (*(_part(name, check, root) for name, check in _V1_DIT.items()), *of_base))
    for layout, (mark, checks) in LAYOUTS.items():
        if _has(root, mark):
            return Report(layout, tuple(_part(name, check, root) for name, check in checks.items()))
    marks = ", ".join(f"{mark} ({layout})" for layout, (mark, _) in LAYOUTS.items())
    raise CheckpointMismatch(f"{root} is no release of a known layout; one has {marks}.")


def _has(root: Path, mark: str) -> bool:
    file, _, key = mark.partition(": ")
    return (root / file).exists() and (not key or key in read_config(root / file))


def _part(name: str, check: Check, root: Path) -> Part:
    try:
        entries = check(root)
    except CheckpointMismatch as error:
        return Part(name, problem=str(error))
    return Part(name, len(entries), sum(math.prod(entry.shape) for entry in entries.values()))
