"""Checkpoints from the hub into a folder of all of them, with a mark that tells whole ones from begun ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from huggingface_hub import snapshot_download

from components.checkpoints.source import FILES
from components.errors import CheckpointMismatch

_ITEM = re.compile(r"(?P<name>[a-z0-9][a-z0-9.-]*)(=(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checkpoint by its folder; no repository = toy weights."""

    name: str
    repository: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, item: str) -> Self:
        """From `name` or `name=repository@revision`. CheckpointMismatch."""
        match = _ITEM.fullmatch(item)
        if match is None:
            raise CheckpointMismatch(f"{item!r} is no checkpoint; write NAME or NAME=OWNER/REPOSITORY@REVISION.")
        return cls(match["name"], match["repository"], match["revision"])

    def mark(self, root: Path) -> Path:
        """The file that says that this revision is whole."""
        return root / self.name / f".whole-{(self.revision or 'tiny').replace('/', '-')}"


def is_whole(root: Path, wanted: Wanted) -> bool:
    """Whether the checkpoint can be loaded: its mark, or, of toy weights, its folder, which appears whole."""
    return wanted.mark(root).exists() if wanted.repository else (root / wanted.name).is_dir()


def fetch(root: Path, wanted: Wanted) -> Path:
    """The folder of a checkpoint, downloaded as far as it is not there. What was cut off goes on.

    Raises:
        CheckpointMismatch: it has no repository, or the hub cannot be reached or does not have it.
    """
    if wanted.repository is None:
        raise CheckpointMismatch(f"{wanted.name} has no repository to be fetched from.")
    folder, mark = root / wanted.name, wanted.mark(root)
    if mark.exists():
        return folder
    try:
        snapshot_download(wanted.repository, revision=wanted.revision, local_dir=folder, allow_patterns=list(FILES))
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointMismatch(
            f"Checkpoint {wanted.repository}@{wanted.revision} cannot be fetched ({reason})."
        ) from error
    mark.touch()
    return folder
