"""Finds a checkpoint on disk or on the hub, and reads its configurations."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import snapshot_download

from components.errors import CheckpointMismatch

# Everything the loaders read; other formats of the same weights stay away.
FILES = ("*.json", "*.safetensors", "*.pth", "*.bin", "*.jinja", "*merges.txt")


def resolve(checkpoint: str, revision: str | None, *, without: tuple[str, ...] = ()) -> Path:
    """The directory of a checkpoint: itself when it is one, else a hub repository's snapshot, downloaded if needed.

    Args:
        checkpoint: a local directory or a hub id, "owner/name".
        revision: hub branch, tag or commit; None = the default branch. Meaningless for a directory.
        without: patterns of files that are not downloaded.

    Raises:
        CheckpointMismatch: it is neither, or the hub cannot be reached and has no copy here.
    """
    local = Path(checkpoint)
    if local.is_dir():
        return local.absolute()
    try:
        found = snapshot_download(
            checkpoint, revision=revision, allow_patterns=list(FILES), ignore_patterns=list(without)
        )
        return Path(found)
    except (OSError, ValueError, httpx.HTTPError) as error:  # hub errors are OSErrors, malformed ids ValueErrors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointMismatch(
            f"Checkpoint {checkpoint!r} is no directory and cannot be fetched from the hub; "
            f"name an existing directory or a reachable repository ({reason})."
        ) from error


def read_config(path: Path) -> dict[str, Any]:
    """A component's JSON configuration.

    Raises:
        CheckpointMismatch: the file is missing or is not a JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointMismatch(f"{path} is missing or not valid JSON; the checkpoint is incomplete.") from error
    if not isinstance(config, dict):
        raise CheckpointMismatch(f"{path} must hold a JSON object.")
    return config


def known_arguments(kind: Callable[..., object], config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `config` that `kind.__init__` understands.

    Releases carry bookkeeping ("_class_name", never relied on: forks rename it) and options of older classes.
    Whatever of those would change the architecture shows as a missing or unexpected key when weights are loaded.
    """
    accepted = inspect.signature(kind).parameters
    return {name: value for name, value in config.items() if name in accepted}
