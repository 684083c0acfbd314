"""Jobs whose inputs were encoded before: what is computed again, and what never is taken from somebody else."""

from __future__ import annotations

import base64
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.denoiser.avatar import CONNECTION_PROMPT
from components.text import TextEncoder
from components.tiny import write_r2v
from components.vae import Vae
from tests.unit.deployments.line import Line, checkpoints, open_line, portrait, speech

IMAGE = "data:image/png;base64," + base64.b64encode(portrait()).decode()
REQUEST = {"model": "skyreels-v3-r2v", "prompt": "a ball", "images": [IMAGE], "seconds": 1}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each text, and how often references, were really encoded."""
    counts: Counter[str] = Counter()
    encode, references = TextEncoder.encode, Vae.encode_references

    def text(self: TextEncoder, prompt: str, negative_prompt: str | None) -> Any:
        counts[prompt] += 1
        return encode(self, prompt, negative_prompt)

    def images(self: Vae, *args: Any) -> Any:
        counts["references"] += 1
        return references(self, *args)

    monkeypatch.setattr(TextEncoder, "encode", text)
    monkeypatch.setattr(Vae, "encode_references", images)
    return counts


async def encodings(line: Line, **fields: Any) -> dict[str, bytes]:
    """Makes a video; the stored bytes of what its denoiser read."""
    job = await line.submit(**REQUEST | fields)
    await line.finish(job["id"])
    keys = await line.edge.artifacts.keys(f"jobs/{job['id']}/work")
    uris = {key.rpartition("-")[2]: line.edge.artifacts.uri(key) for key in keys}
    names = ("context.safetensors", "condition.safetensors")
    return {name: await line.edge.artifacts.get_bytes(uris[name]) for name in names}


async def test_the_same_input_is_encoded_once_and_each_job_has_its_own_copy(tmp_path: Path, work: Counter[str]) -> None:
    models = checkpoints(tmp_path, ("skyreels-v3-r2v",))
    async with open_line(tmp_path, models) as line:
        first = await encodings(line)
        assert await encodings(line, seed=8) == first
    async with open_line(tmp_path, models) as restarted:
        assert await encodings(restarted, seed=9) == first
    assert work == {"a ball": 1, "references": 1}


async def test_another_tenant_has_to_encode_the_same_itself(tmp_path: Path, work: Counter[str]) -> None:
    models = checkpoints(tmp_path, ("skyreels-v3-r2v",))
    for tenant in ("one", "another"):
        async with open_line(tmp_path, models, f"tenant: {tenant}\n") as line:
            await encodings(line, guidance=2.0)
    assert work == {"a ball": 2, "references": 2, "": 1}  # an empty negative prompt is nobody's secret


async def test_other_weights_in_the_same_place_never_hit(tmp_path: Path, work: Counter[str]) -> None:
    models = checkpoints(tmp_path, ("skyreels-v3-r2v",))
    async with open_line(tmp_path, models) as line:
        before = await encodings(line)
    shutil.rmtree(tmp_path / "write_r2v")
    write_r2v(tmp_path / "write_r2v", seed=1)
    async with open_line(tmp_path, models) as line:
        after = await encodings(line)
    assert work == {"a ball": 2, "references": 2}
    assert all(before[name] != after[name] for name in before)


async def test_every_tenant_shares_the_sentence_of_all_avatars(tmp_path: Path, work: Counter[str]) -> None:
    models = checkpoints(tmp_path, ("skyreels-v3-avatar",))
    voice = "data:audio/wav;base64," + base64.b64encode(speech(0.5)).decode()
    avatar = {"model": "skyreels-v3-avatar", "prompt": "she speaks", "images": [IMAGE], "audio": voice}
    for tenant in ("one", "another"):
        async with open_line(tmp_path, models, f"tenant: {tenant}\n") as line:
            await line.finish((await line.submit(**avatar))["id"])
    assert work == {"she speaks": 2, CONNECTION_PROMPT: 1}
