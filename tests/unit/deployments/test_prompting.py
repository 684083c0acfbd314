"""Prompts that are extended on their way to the text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.prompt import Extender
from components.text import TextEncoder
from components.tiny import write_extender
from tests.unit.deployments.line import Line, checkpoints, open_line
from tests.unit.deployments.test_cached_stages import REQUEST

Said = list[str]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Said:
    """Every text that was really encoded."""
    texts: Said = []
    encode = TextEncoder.encode

    def spied(self: TextEncoder, prompt: str, negative_prompt: str | None) -> Any:
        texts.append(prompt)
        return encode(self, prompt, negative_prompt)

    monkeypatch.setattr(TextEncoder, "encode", spied)
    return texts


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seed of every question to the chat model."""
    seeds: list[int] = []
    answer = Extender.answer

    def spied(self: Extender, asked: Any, seed: int) -> str:
        seeds.append(seed)
        return answer(self, asked, seed)

    monkeypatch.setattr(Extender, "answer", spied)
    return seeds


def extending(folder: Path, options: str = "") -> dict[str, str]:
    """How `open_line` is told to extend prompts."""
    write_extender(folder / "extender")
    more = f"prompt: {{checkpoint: {folder / 'extender'}, tiny: true, max_tokens: 24{options}}}\n"
    return {"models": checkpoints(folder, ("skyreels-v3-r2v",)), "more": more, "stages": "prompt"}


async def made(line: Line, **fields: Any) -> dict[str, Any]:
    """A job whose prompt is encoded."""
    job = await line.submit(**REQUEST | {"prompt_extend": True} | fields)
    while not any(ref.stage == "text" and ref.job_id == job["id"] for ref in line.done):
        await line.advance()
    return dict((await line.edge.client.get(f"/v1/videos/{job['id']}")).json())


async def test_the_extended_prompt_is_shown_and_encoded_and_made_once(
    tmp_path: Path, encoded: Said, asked: list[int]
) -> None:
    async with open_line(tmp_path, **extending(tmp_path)) as line:
        queued = await line.submit(**REQUEST | {"prompt_extend": True})
        assert (queued["prompt_extend"], queued["prompt_extension"]) == (True, None)
        first = await line.finish(queued["id"])
        extension = first["prompt_extension"]
        assert first["prompt"] == "a ball"
        assert extension["kept"] is None and extension["prompt"] not in {"", "a ball"}
        assert encoded == [extension["prompt"]]
        second = await made(line, seed=8)
        assert second["prompt_extension"] == extension
        assert [stage["stage"] for stage in second["stages"]][:2] == ["prompt", "text"]
        plain = await made(line, prompt_extend=False)
        assert (plain["prompt_extend"], plain["prompt_extension"]) == (False, None)
    assert asked == [0]
    assert encoded == [extension["prompt"], "a ball"]


async def test_a_prompt_whose_references_would_be_lost_is_kept(tmp_path: Path, encoded: Said) -> None:
    async with open_line(tmp_path, **extending(tmp_path)) as line:
        job = await made(line, prompt="@ball rolls")
    assert job["prompt_extension"] == {
        "prompt": "@ball rolls",
        "kept": "The model's answer does not mention @ball.",
    }
    assert encoded == ["@ball rolls"]


async def test_draws_follow_the_jobs_seed(tmp_path: Path, asked: list[int]) -> None:
    async with open_line(tmp_path, **extending(tmp_path, ", temperature: 0.5")) as line:
        for seed in (7, 7, 8):
            await made(line, seed=seed)
    assert asked == [7, 8]


async def test_without_an_extender_asking_for_one_is_refused_in_a_sentence(tmp_path: Path) -> None:
    async with open_line(tmp_path, checkpoints(tmp_path, ("skyreels-v3-r2v",))) as line:
        response = await line.edge.client.post("/v1/videos", json=REQUEST | {"prompt_extend": True})
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == "prompt_extend"
        assert error["message"] == ("No prompt extender is served here; leave prompt_extend out or set it to false.")
        assert (await line.edge.client.get("/v1/status")).json()["extender"] is None


async def test_the_status_says_who_extends(tmp_path: Path) -> None:
    options = extending(tmp_path)
    async with open_line(tmp_path, **options) as line:
        report = (await line.edge.client.get("/v1/status")).json()
    assert report["extender"] == {"checkpoint": str(tmp_path / "extender"), "backend": "transformers"}
