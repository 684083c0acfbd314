"""The models of V2 from the door to the file, without Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.deployments.line import Line, checkpoints, film, moving, open_line, pictures, portrait
from tests.unit.deployments.test_chains import uri

MODELS = ("skyreels-v2-t2v", "skyreels-v2-i2v", "skyreels-v2-df")
PICTURE = uri(portrait(), "image/png")
UPRIGHT = uri(portrait(112, 64), "image/png")
SOURCE = uri(film(moving(30)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoints(tmp_path_factory.mktemp("checkpoints"), MODELS)


@pytest.fixture
async def line(tmp_path: Path, models: str) -> AsyncIterator[Line]:
    async with open_line(tmp_path, models) as line:
        yield line


async def made(line: Line, model: str, **fields: Any) -> tuple[dict[str, Any], np.ndarray]:
    fields = {"prompt": "a ball rolls", "steps": 2, "seconds": 1, **fields}
    job = await line.finish((await line.submit(model=f"skyreels-v2-{model}", **fields))["id"])
    return job, pictures(await line.content(job["id"]))


async def test_a_clip_from_text_and_what_moves_it(line: Line) -> None:
    job, frames = await made(line, "t2v")
    assert (job["size"], frames.shape) == ("112x64", (25, 64, 112, 3))
    assert {ref.stage for ref in line.done} == {"text", "denoise", "decode"}
    _, upright = await made(line, "t2v", aspect_ratio="9:16")
    assert upright.shape == (25, 112, 64, 3)
    _, again = await made(line, "t2v")
    assert np.array_equal(frames, again)
    for changed in ({"negative_prompt": ""}, {"guidance": 2.0}, {"steps": 3}):
        _, other = await made(line, "t2v", **changed)
        assert not np.array_equal(frames, other), changed
    _, alone = await made(line, "t2v", guidance=1.0)
    _, unheard = await made(line, "t2v", guidance=1.0, negative_prompt="rain")
    assert np.array_equal(alone, unheard)


async def test_a_clip_begins_with_its_image_and_keeps_its_orientation(line: Line) -> None:
    _, wide = await made(line, "i2v", images=[PICTURE])
    assert wide.shape == (25, 64, 112, 3)
    assert {ref.stage for ref in line.done} == {"text", "condition", "vision", "denoise", "decode"}
    _, upright = await made(line, "i2v", images=[UPRIGHT])
    assert upright.shape == (25, 112, 64, 3)
    _, other = await made(line, "i2v", images=[uri(portrait(80, 80), "image/png")])
    assert other.shape == wide.shape
    assert not np.array_equal(other, wide)


async def test_forcing_makes_a_long_video_of_chunks(line: Line) -> None:
    job, frames = await made(line, "df", seconds=3, addnoise_condition=10)
    assert (job["frames"], len(frames)) == (89, 89)
    assert [ref.chunk for ref in line.done if ref.stage == "decode"] == [1, 2, 3]


async def test_forcing_in_turns_and_by_blocks(line: Line) -> None:
    _, frames = await made(line, "df", seconds=2, ar_step=2, causal_block_size=5)
    assert len(frames) == 4 * 19 + 1  # 17 latent frames are made whole blocks of 5
    _, together = await made(line, "df", seconds=2)
    assert not np.array_equal(frames[:65], together)


async def test_forcing_begins_and_ends_with_images(line: Line) -> None:
    _, begun = await made(line, "df", images=[PICTURE])
    _, ended = await made(line, "df", images=[PICTURE, uri(portrait(80, 80), "image/png")])
    assert begun.shape == ended.shape == (25, 64, 112, 3)
    assert np.array_equal(begun[0], ended[0])  # nothing but the image is in it
    assert not np.array_equal(begun[1:], ended[1:])


async def test_forcing_goes_on_from_a_video(line: Line) -> None:
    _, new = await made(line, "df", video=SOURCE, seconds=2)
    job, both = await made(line, "df", video=SOURCE, seconds=2, include_source=True)
    assert (len(new), len(both), job["frames"]) == (48, 78, 78)
    assert np.abs(both[:30].astype(int) - moving(30)).mean() < 12
    assert np.abs(both[30:].astype(int) - new).mean() < 3
    fields = {"prompt": "on", "video": {"id": job["id"]}, "model": "skyreels-v2-df", "seconds": "1"}
    response = await line.edge.client.post("/v1/videos/extensions", json=fields)
    assert response.status_code == 200, response.text
    assert response.json()["frames"] == 24


REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("t2v", {"images": [PICTURE]}, "takes no reference images"),
    ("t2v", {"steps": 51}, "steps must be 1 to 50"),
    ("t2v", {"ar_step": 5}, "ar_step must be left out"),
    ("t2v", {"guidance_image": 2.0}, "guidance_image must be 1 or left out"),
    ("t2v", {"size": "960x540"}, "common sizes: 112x64, 64x112, 960x544, 544x960"),
    ("t2v", {"aspect_ratio": "1:1"}, "aspect_ratio must be one of 16:9, 9:16"),
    ("i2v", {}, "takes 1 to 1 reference images"),
    ("df", {"ar_step": 11}, "ar_step must be 0 to 10"),
    ("df", {"causal_block_size": 3}, "causal_block_size must be 1 or 5"),
    ("df", {"addnoise_condition": 61}, "addnoise_condition must be 0 to 60"),
    ("df", {"images": [PICTURE], "video": SOURCE}, "begins with images or with a video"),
    ("df", {"images": [PICTURE], "causal_block_size": 5}, "no whole causal blocks"),
    ("df", {"include_source": True}, "needs a video to continue"),
    ("df", {"seconds": 61}, "seconds must be 1 to 60"),
)


async def test_what_cannot_be_made_is_refused(line: Line) -> None:
    for model, fields, message in REFUSED:
        body = {"prompt": "a ball", "model": f"skyreels-v2-{model}", **fields}
        response = await line.edge.client.post("/v1/videos", json=body)
        assert response.status_code == 400, fields
        assert message in response.json()["error"]["message"]


async def test_wavespeed_and_runware_ask_for_the_same(line: Line) -> None:
    post = line.edge.client.post
    body = {
        "prompt": "a ball",
        "image": PICTURE,
        "end_image": UPRIGHT,
        "duration": 1,
        "num_inference_steps": 2,
        "seed": 7,
    }
    response = await post("/api/v3/skywork-ai/skyreels-v2/diffusion-forcing", json=body)
    assert response.status_code == 200, response.text
    request = (await line.edge.store.get_job(response.json()["data"]["id"], "default")).request
    assert (len(request.images), request.steps, request.frames, request.guidance) == (2, 2, 25, 6.0)
    refused = await post("/api/v3/skywork-ai/skyreels-v2/diffusion-forcing", json={"prompt": "x", "end_image": PICTURE})
    assert (refused.status_code, "needs an image" in refused.json()["message"]) == (400, True)

    numbers = count()

    def task(model: str, **inputs: Any) -> list[dict[str, Any]]:
        uuid = f"fa3238d9-cd10-45ea-b28d-6354a41ed4{next(numbers):02}"
        asked = {"taskType": "videoInference", "taskUUID": uuid, "positivePrompt": "a ball", "resolution": "64p"}
        return [{**asked, "model": f"skywork:skyreels-v2@{model}", "inputs": inputs}]

    frames = [{"image": UPRIGHT, "frame": "last"}, {"image": PICTURE, "frame": "first"}]
    response = await post("/runware/v1", json=task("df", frameImages=frames))
    assert response.status_code == 200, response.text
    request = (await line.edge.store.find_task("fa3238d9-cd10-45ea-b28d-6354a41ed400", "default")).request
    assert [image.width for image in request.images] == [112, 64]
    for model, inputs, message in (
        ("i2v", {}, "begins with an image"),
        ("df", {"frameImages": frames[:1]}, "needs the first frame"),
        ("df", {"frameImages": [{"image": PICTURE, "frame": 3}]}, "must be first or last"),
    ):
        response = await post("/runware/v1", json=task(model, **inputs))
        assert message in response.json()["errors"][0]["message"]
