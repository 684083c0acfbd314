from pathlib import Path

import pytest

from components.tiny import write_r2v


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reference-to-video checkpoint. Read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "r2v"
    write_r2v(folder)
    return folder
