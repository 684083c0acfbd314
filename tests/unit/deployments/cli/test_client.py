"""Where the shell commands put what they fetch, and how they tell of it."""

from __future__ import annotations

from pathlib import Path

from deployments.cli.client import how_far, targets


def test_several_results_go_to_numbered_files() -> None:
    assert targets(Path("a/out.mp4"), 1) == [Path("a/out.mp4")]
    assert targets(Path("a/out.mp4"), 3) == [Path(f"a/out-{index}.mp4") for index in range(3)]
    assert targets(Path("out"), 2) == [Path("out-0"), Path("out-1")]


def test_a_running_call_tells_its_chunk_and_step() -> None:
    assert how_far({"chunk": 0, "step": 3, "steps": 8}) == "3/8 "
    assert how_far({"chunk": 2, "step": 3, "steps": 8}) == "chunk 2 3/8 "
    assert how_far({"chunk": 0, "step": 0, "steps": 0}) == ""
