"""Scratch folders of this process, gone at the end of the block or, after a kill, at the next start."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Scratch:
    """A folder per process under `root`, named by its pid; folders of dead processes are removed on construction."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        for folder in root.iterdir():
            if folder.name.isdigit() and not Path(f"/proc/{folder.name}").exists():
                shutil.rmtree(folder, ignore_errors=True)
        self._own = root / str(os.getpid())
        self._own.mkdir(exist_ok=True)

    @property
    def path(self) -> Path:
        """The process's own folder."""
        return self._own

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """An empty folder for one piece of work."""
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=self._own) as path:
            yield Path(path)
