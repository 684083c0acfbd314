"""Text encoders shared by two ranks, or offloaded, in a real system: the same video as from one process."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.system import System

pytestmark = [
    pytest.mark.integration,
    pytest.mark.stress,  # a system of its own; what the ranks compute is a unit test
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"),
]
TEXT: dict[str, dict[str, Any]] = {
    "deepspeed-tp": {"name": "TextEncoder", "stages": ["text"], "ranks": 2, "parallel": "deepspeed-tp"},
    "zero-offload": {"name": "TextEncoder", "stages": ["text"], "parallel": "zero-offload"},
}


@pytest.fixture(params=TEXT)
def shared(folder: Path, request: pytest.FixtureRequest) -> Iterator[System]:
    pools = [TEXT[request.param], {"name": "Worker", "stages": ["condition", "denoise", "decode"]}]
    with System(folder / request.param, overrides={"topology": "disaggregated", "pools": pools}) as system:
        yield system


def test_a_video_is_made(shared: System) -> None:
    for seed in ("1", "2"):
        job = shared.finish(shared.submit(seconds="1", seed=seed, guidance="2", negative_prompt="rain")["id"])
        assert job["frames"] == 25
