from __future__ import annotations

from pathlib import Path

import pytest

from components.checkpoints import download
from components.checkpoints.download import Wanted, fetch, is_whole
from components.errors import CheckpointMismatch


def test_an_item_is_a_name_or_a_revision_of_a_repository() -> None:
    assert Wanted.parse("tiny") == Wanted("tiny")
    assert Wanted.parse("r2v=Skywork/R2V-14B@main") == Wanted("r2v", "Skywork/R2V-14B", "main")


@pytest.mark.parametrize("item", ["", "../x", "a=b", "a=b/c", "a=b/c/d@main", "a=b/c@", "A"])
def test_other_items_are_refused(item: str) -> None:
    with pytest.raises(CheckpointMismatch, match="is no checkpoint"):
        Wanted.parse(item)


class Hub:
    """Writes a file; the first `cuts` downloads end in the middle."""

    def __init__(self, cuts: int) -> None:
        self.cuts = cuts
        self.calls = 0

    def __call__(self, repository: str, *, revision: str, local_dir: Path, allow_patterns: list[str]) -> str:
        self.calls += 1
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / "begun").touch()
        if self.calls <= self.cuts:
            raise OSError("connection reset")
        return str(local_dir)


WANTED = Wanted("r2v", "a/b", "v1")


def hub(monkeypatch: pytest.MonkeyPatch, cuts: int = 0) -> Hub:
    found = Hub(cuts)
    monkeypatch.setattr(download, "snapshot_download", found)
    return found


def test_a_checkpoint_is_whole_when_its_download_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = hub(monkeypatch, cuts=1)
    with pytest.raises(CheckpointMismatch, match=r"a/b@v1 cannot be fetched \(connection reset\)"):
        fetch(tmp_path, WANTED)
    assert (tmp_path / "r2v/begun").exists()
    assert not is_whole(tmp_path, WANTED)
    assert fetch(tmp_path, WANTED) == tmp_path / "r2v"
    assert is_whole(tmp_path, WANTED)
    fetch(tmp_path, WANTED)
    assert server.calls == 2


def test_another_revision_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch)
    fetch(tmp_path, WANTED)
    assert not is_whole(tmp_path, Wanted("r2v", "a/b", "v2"))


def test_toy_weights_are_written_and_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="no repository"):
        fetch(tmp_path, Wanted("tiny"))
    assert not is_whole(tmp_path, Wanted("tiny"))
    (tmp_path / "tiny").mkdir()
    assert is_whole(tmp_path, Wanted("tiny"))


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from deployments.cli.main import app

    item = "r2v=a/b@v1"
    hub(monkeypatch)
    waiting = CliRunner().invoke(app, ["checkpoints", "await", str(tmp_path), item, "--timeout-s", "0.001"])
    assert isinstance(waiting.exception, CheckpointMismatch)
    assert CliRunner().invoke(app, ["checkpoints", "fetch", str(tmp_path), item]).exit_code == 0
    assert CliRunner().invoke(app, ["checkpoints", "await", str(tmp_path), item]).exit_code == 0
