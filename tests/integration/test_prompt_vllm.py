"""Prompts extended by vLLM are those extended by transformers. Skipped where vLLM is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import laptop
from tests.integration.system import System

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; `make install-vllm` does"
    ),
]


@pytest.fixture
def engine(folder: Path) -> Iterator[System]:
    checkpoint = str(folder / "tiny-extender")
    prompt = {"checkpoint": checkpoint, "tiny": True, "max_tokens": 48, "backend": "vllm"}
    pools = [pool if "text" not in pool["stages"] else {**pool, "stages": ["text"]} for pool in laptop()["pools"]]
    pools.append({"name": "PromptExtender", "stages": ["prompt"], "slots": {"prompt": 4}})
    with System(folder / "vllm", overrides={**laptop(), "pools": pools, "prompt": prompt}) as system:
        yield system


def test_both_backends_extend_alike(system: System, engine: System) -> None:
    assert engine.client.get("/v1/status").json()["extender"]["backend"] == "vllm"
    jobs = [where.finish(where.submit(prompt_extend="true")["id"], 300) for where in (system, engine)]
    assert jobs[0]["prompt_extension"] == jobs[1]["prompt_extension"]
    assert jobs[0]["prompt_extension"]["kept"] is None
    assert engine.stop() == 0
