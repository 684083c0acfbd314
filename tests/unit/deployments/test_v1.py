"""SkyReels V1 from the door to the file, without Ray."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HunyuanSkyreelsImageToVideoPipeline
from PIL import Image
from safetensors.torch import load_file

from components.media.image import read
from components.tiny import write_v1_i2v
from tests.unit.components.hunyuan_pipelines import pipeline
from tests.unit.deployments.line import Line, checkpoints, open_line, pictures, portrait
from tests.unit.deployments.test_chains import uri

V1 = "/api/v3/wavespeed-ai/SkyReels-V1"
MODELS = ("skyreels-v1-t2v", "skyreels-v1-i2v")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def models(root: Path) -> str:
    return checkpoints(root, MODELS)


@pytest.fixture
async def line(tmp_path: Path, models: str) -> AsyncIterator[Line]:
    async with open_line(tmp_path, models) as line:
        yield line


def body(**changes: Any) -> dict[str, Any]:
    image = uri(portrait(), "image/png")
    return {"prompt": "FPS-24, a ball", "image": image, "seed": 5, "num_inference_steps": 3, **changes}


async def test_an_image_becomes_the_video_that_the_librarys_pipeline_makes(
    line: Line, root: Path, tmp_path: Path
) -> None:
    answer = await line.edge.client.post(V1, json=body(guidance_scale=4, negative_prompt="rain"))
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert (data["model"], data["status"], data["has_nsfw_contents"]) == ("wavespeed-ai/SkyReels-V1", "created", [])
    job = await line.finish(data["id"])
    assert (job["size"], job["frames"]) == ("112x64", 25)
    assert sorted({ref.stage for ref in line.done}) == ["condition", "decode", "denoise", "text"]
    found = (await line.edge.client.get(data["urls"]["get"])).json()["data"]
    assert found["status"] == "completed"
    assert pictures(await line.content(data["id"])).shape == (25, 64, 112, 3)
    (file,) = tmp_path.rglob("*latents.safetensors")
    torch.testing.assert_close(load_file(file)["video_BCTHW"], expected(root), rtol=0, atol=1e-4)


def expected(root: Path) -> torch.Tensor:
    """The library's latents for the same request."""
    picture: Image.Image = read(portrait(), max_pixels=10**6)
    latents: torch.Tensor = pipeline(HunyuanSkyreelsImageToVideoPipeline, root / "write_v1_i2v")(
        image=picture,
        prompt="FPS-24, a ball",
        negative_prompt="rain",
        height=64,
        width=112,
        num_frames=25,
        num_inference_steps=3,
        true_cfg_scale=4.0,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
        return_dict=False,
    )[0]
    return latents


async def test_what_is_left_out_is_the_models_own(line: Line) -> None:
    await line.edge.client.post(V1, json={**body(), "num_inference_steps": 30})
    await line.submit(model="skyreels-v1-t2v", prompt="a ball", guidance=1.0, steps=7, aspect_ratio="9:16")
    await line.submit(model="skyreels-v1-t2v", prompt="a ball", negative_prompt="")
    found = (await line.edge.store.list_jobs("default", limit=3)).jobs
    asked = {(job.request.model, job.request.steps): job.request for job in found}
    image, plain = asked["skyreels-v1-i2v", 30], asked["skyreels-v1-t2v", 7]
    assert (image.guidance, (image.height, image.width)) == (6.0, (64, 112))
    assert "deformed hands" in image.negative_prompt
    assert (plain.guidance, plain.negative_prompt, (plain.height, plain.width)) == (1.0, "", (112, 64))
    assert asked["skyreels-v1-t2v", 30].negative_prompt == ""  # asked for
    assert (asked["skyreels-v1-t2v", 30].height, asked["skyreels-v1-t2v", 30].width) == (64, 112)


async def test_text_becomes_several_videos(line: Line) -> None:
    job = await line.submit(model="skyreels-v1-t2v", prompt="a ball rolls", steps=2, n=2)
    await line.finish(job["id"])
    assert sorted(ref.stage for ref in line.done) == ["decode", "decode", "denoise", "denoise", "text"]
    first, second = [pictures(await line.content(job["id"], index=index)) for index in (0, 1)]
    assert first.shape == second.shape == (25, 64, 112, 3)
    assert not np.array_equal(first, second)


REFUSED = [
    ({"model": "skyreels-v1-t2v", "steps": 51}, "steps must be 1 to 50 for skyreels-v1-t2v; got 51"),
    ({"model": "skyreels-v1-t2v", "guidance": 21}, "guidance must be 1 to 20"),
    ({"model": "skyreels-v1-t2v", "guidance": 6, "guidance_image": 2}, "guidance_image must be 1 or left out"),
    ({"model": "skyreels-v1-t2v", "images": [uri(portrait(), "image/png")]}, "takes no reference images"),
    ({"model": "skyreels-v1-i2v"}, "takes 1 to 1 reference images"),
    ({"model": "skyreels-v1-t2v", "seconds": 5}, "seconds must be 1 to 4"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
async def test_refusals(line: Line, fields: dict[str, Any], message: str) -> None:
    response = await line.edge.client.post("/v1/videos", json={"prompt": "a ball", **fields})
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_encoders_and_vae_may_be_of_another_checkpoint(tmp_path: Path) -> None:
    write_v1_i2v(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "base")
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"):
        shutil.rmtree(tmp_path / "whole" / part)
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (tmp_path / "base" / name).unlink()
    row = f"{{name: skyreels-v1-i2v, checkpoint: {tmp_path / 'whole'}, base: {tmp_path / 'base'}, tiny: true}}"
    async with open_line(tmp_path, f"[{row}]") as line:
        answer = await line.edge.client.post(V1, json=body(num_inference_steps=1))
        await line.finish(answer.json()["data"]["id"])
