"""The finished files of a decoded video: containers, quality, pictures."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cluster.records import Artifact, Container, Output
from deployments.stages import DecodeStage
from tests.unit.deployments.decoding import Decoding, decode_stage, opened

FRAMES = 29


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> DecodeStage:
    return decode_stage(tmp_path_factory.mktemp("checkpoint") / "r2v")


@pytest.fixture
async def decoding(tmp_path: Path, stage: DecodeStage) -> AsyncIterator[Decoding]:
    async with opened(tmp_path, stage) as decoding:
        yield decoding


async def made(decoding: Decoding, output: Output | None = None) -> tuple[Artifact, bytes]:
    job_id = f"j-{output.container}-{output.quality}" if output else "j"
    await decoding.ready(FRAMES, job_id=job_id, output=output or Output())
    artifact = await decoding.run(await decoding.take(job_id))
    return artifact, await decoding.artifacts.get_bytes(artifact.uri)


def pictures(data: bytes) -> tuple[str, list[NDArray[np.uint8]]]:
    with av.open(io.BytesIO(data)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        return video.streams.video[0].codec_context.name, frames


async def test_every_container_holds_the_same_pictures(decoding: Decoding) -> None:
    plain, mp4 = await made(decoding)
    mov, mov_data = await made(decoding, Output(Container.MOV))
    webm, webm_data = await made(decoding, Output(Container.WEBM))
    assert [artifact.media_type for artifact in (plain, mov, webm)] == ["video/mp4", "video/quicktime", "video/webm"]
    assert [Path(artifact.uri).suffix for artifact in (plain, mov, webm)] == [".mp4", ".mov", ".webm"]
    assert mov_data[4:12] == b"ftypqt  "
    assert webm_data[:4] == bytes.fromhex("1a45dfa3")
    (codec, first), (same, second), (other, third) = map(pictures, (mp4, mov_data, webm_data))
    assert (codec, same) == ("h264", "h264")
    assert "vp9" in other
    assert len(first) == len(second) == len(third) == FRAMES
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert np.abs(np.stack(first).astype(int) - np.stack(third)).mean() < 12
    # All were previewed alike.
    for job_id in ("j", "j-mov-None", "j-webm-None"):
        assert [segment.frames for segment in await decoding.segments(job_id)] == [24, 5]


async def test_quality_costs_bytes_and_its_default_is_what_it_was(decoding: Decoding) -> None:
    for container in (Container.MP4, Container.WEBM):
        _, unset = await made(decoding, Output(container))
        low, high = [(await made(decoding, Output(container, quality)))[1] for quality in (20, 99)]
        assert len(low) < len(unset) < len(high)
    assert (await made(decoding))[1] == (await made(decoding, Output(Container.MP4, 82)))[1]


async def test_pictures_lie_beside_the_video(decoding: Decoding) -> None:
    artifact, data = await made(decoding)
    thumbnail, sheet = artifact.thumbnail, artifact.spritesheet
    assert thumbnail is not None
    assert sheet is not None
    assert (thumbnail.media_type, sheet.media_type) == ("image/webp", "image/jpeg")
    assert artifact.uris == {artifact.uri, thumbnail.uri, sheet.uri}
    image = Image.open(io.BytesIO(await decoding.artifacts.get_bytes(thumbnail.uri)))
    assert image.size == (thumbnail.width, thumbnail.height) == (112, 64)
    away = [np.abs(np.asarray(image.convert("RGB")).astype(int) - frame).mean() for frame in pictures(data)[1]]
    assert int(np.argmin(away)) == FRAMES // 2  # it shows the middle, coded twice with loss
    grid = Image.open(io.BytesIO(await decoding.artifacts.get_bytes(sheet.uri)))
    assert grid.size == (sheet.width, sheet.height) == (5 * 112, 5 * 64)
