"""Writing a toy checkpoint: all of it or nothing, and only where nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_STAMP = "tiny.json"


@dataclass(frozen=True, slots=True)
class TinySizes:
    """What may differ between toy checkpoints. Heads of 24 channels; the VAE's first width grows fourfold inside."""

    layers: int = 2
    heads: int = 4
    vae_width: int = 4


def write_release(
    root: Path, model: str, recipe: int, seed: int, sizes: TinySizes, write: Callable[[Path], None]
) -> None:
    """Writes a checkpoint to `root` by `write`; does nothing where this very checkpoint lies already.

    Atomic: it is built beside `root` and renamed, so readers see none or all of it, and several processes may write at
    once. The stamp names model, recipe, seed and sizes.

    Raises:
        FileExistsError: `root` is something else, perhaps real weights; it is never touched.
    """
    stamp = {"recipe": recipe, "model": model, "seed": seed, **asdict(sizes)}
    if _is_written(root, stamp):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        write(building)
        (building / _STAMP).write_text(as_json(stamp), encoding="utf-8")
        building.chmod(0o755)
        try:
            building.rename(root)
        except OSError:
            if not _is_written(root, stamp):  # else somebody was quicker
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def as_json(data: dict[str, Any]) -> str:
    """As the configuration files are written."""
    return json.dumps(data, indent=2) + os.linesep


def _is_written(root: Path, stamp: dict[str, Any]) -> bool:
    if not root.exists() or not any(root.iterdir()):
        return False
    file = root / _STAMP
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == stamp:
        return True
    raise FileExistsError(f"{root} holds something else than this tiny checkpoint; remove it or choose another path.")
