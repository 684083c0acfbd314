"""Chained jobs from the door to the file, without Ray."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from components.media.mux import probe_video
from tests.unit.deployments.line import Line, checkpoints, film, moving, open_line, pictures

MODELS = ("skyreels-v3-r2v", "skyreels-v3-extend", "skyreels-v3-shot")


def uri(data: bytes, media_type: str = "video/mp4") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoints(tmp_path_factory.mktemp("checkpoints"), MODELS)


@pytest.fixture
async def line(tmp_path: Path, models: str) -> AsyncIterator[Line]:
    async with open_line(tmp_path, models) as line:
        yield line


SOURCE = uri(film(moving(30)))


async def test_an_extension_is_a_chain_of_rolls_in_one_file(line: Line) -> None:
    job = await line.submit(model="skyreels-v3-extend", prompt="it rolls on", video=SOURCE, seconds=6)
    assert (job["frames"], job["size"]) == (132 + 36, "112x64")
    job = await line.finish(job["id"])
    data = await line.content(job["id"])
    assert probe_video(data).frames == 168
    assert [ref.chunk for ref in line.done if ref.stage == "decode"] == [1, 2]


async def test_a_stitched_extension_begins_with_its_source(line: Line) -> None:
    fields = {"model": "skyreels-v3-extend", "prompt": "on", "video": SOURCE, "seconds": 1}
    new = await line.finish((await line.submit(**fields))["id"])
    both = await line.finish((await line.submit(**fields, include_source=True))["id"])
    assert (new["frames"], both["frames"]) == (36, 66)
    alone, stitched = (pictures(await line.content(job["id"])) for job in (new, both))
    assert np.abs(stitched[:30].astype(int) - moving(30)).mean() < 12
    assert np.abs(stitched[30:].astype(int) - alone).mean() < 3


async def test_a_shot_stands_alone(line: Line) -> None:
    job = await line.submit(model="skyreels-v3-shot", prompt="[ZOOM_IN_CUT] its face", video=SOURCE, seconds=2)
    job = await line.finish(job["id"])
    assert pictures(await line.content(job["id"])).shape == (49, 64, 112, 3)
