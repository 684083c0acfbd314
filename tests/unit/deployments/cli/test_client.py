"""Where the shell commands put what they fetch."""

from __future__ import annotations

from pathlib import Path

from deployments.cli.client import targets


def test_several_results_go_to_numbered_files() -> None:
    assert targets(Path("a/out.mp4"), 1) == [Path("a/out.mp4")]
    assert targets(Path("a/out.mp4"), 3) == [Path(f"a/out-{index}.mp4") for index in range(3)]
    assert targets(Path("out"), 2) == [Path("out-0"), Path("out-1")]
