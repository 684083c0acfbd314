"""Chained jobs from the door to the file, without Ray."""

from __future__ import annotations

import base64
import io
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cluster.errors import StageError
from cluster.records import StageRef
from components.media.mux import probe_video
from deployments import decoding
from deployments.cut import Made
from deployments.decoding import made
from tests.unit.deployments.line import (
    Line,
    checkpoints,
    film,
    moving,
    open_line,
    pictures,
    portrait,
    sound_of,
    speech,
)

MODELS = ("skyreels-v3-r2v", "skyreels-v3-extend", "skyreels-v3-shot", "skyreels-v3-avatar")


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
    alone, stitched = [pictures(await line.content(job["id"])) for job in (new, both)]
    assert np.abs(stitched[:30].astype(int) - moving(30)).mean() < 12
    assert np.abs(stitched[30:].astype(int) - alone).mean() < 3


async def test_a_shot_stands_alone(line: Line) -> None:
    job = await line.submit(model="skyreels-v3-shot", prompt="[ZOOM_IN_CUT] its face", video=SOURCE, seconds=2)
    job = await line.finish(job["id"])
    assert pictures(await line.content(job["id"])).shape == (49, 64, 112, 3)


class Held:
    """Counts the decoded frames that are still held anywhere."""

    def __init__(self) -> None:
        self.now = self.most = self.all = 0

    def made(self, *given: Any) -> Iterator[Made]:
        """As `decoding.made`."""
        for one in made(*given):
            count = len(one.levels_FYXC)
            self.now += count
            self.all += count
            self.most = max(self.most, self.now)
            weakref.finalize(one.levels_FYXC, self._gone, count)
            yield one

    def _gone(self, count: int) -> None:
        self.now -= count


async def test_a_talking_avatar_is_a_chain_of_windows_with_its_sound(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    monkeypatch.setattr(decoding, "made", held.made)
    sound = speech(3.5)  # 88 frames: two windows behind the key-frame pass
    job = await line.submit(
        model="skyreels-v3-avatar",
        prompt="she speaks calmly",
        images=[uri(portrait(), "image/png")],
        audio=uri(sound, "audio/wav"),
    )
    assert (job["frames"], job["fps"], job["seconds"]) == (88, 25, "4")
    job = await line.finish(job["id"])
    data = await line.content(job["id"])
    with av.open(io.BytesIO(data)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        lengths = [float(stream.duration * stream.time_base) for stream in (video, audio)]
        assert (video.frames, audio.codec_context.name) == (88, "aac")
    assert abs(lengths[0] - lengths[1]) <= 1 / 25
    assert [ref.chunk for ref in line.done if ref.stage == "decode"] == [0, 1, 2]
    assert [ref.chunk for ref in line.done if ref.stage == "vision"] == [0, 2]
    shown = (await line.edge.client.get(f"/v1/videos/{job['id']}/preview")).text
    seconds = [float(row.split(":")[1].rstrip(",")) for row in shown.splitlines() if row.startswith("#EXTINF")]
    assert sum(seconds) == pytest.approx(88 / 25)
    # What one latent frame gives is decoded, waits, or is encoded: no window is ever held as a whole.
    assert held.all == 3 * 81
    assert held.most <= 3 * 4
    assert held.now == 0


def mask(left: bool) -> str:
    """One half of the portrait as an image; neither reaches the borders, so there is a background."""
    plane = np.zeros((64, 112), np.uint8)
    plane[16:48, (16 if left else 64) : (48 if left else 96)] = 255
    return uri(png(plane), "image/png")


def png(pixels: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize("masks", [[True, True], [True, None], [None, False]])
async def test_masks_that_leave_a_speaker_or_the_background_nothing_are_refused_in_a_sentence(
    line: Line, masks: list[bool | None]
) -> None:
    """Two masks that cover everything; an empty one."""
    planes = [np.full((64, 112), 0 if left is None else 255, np.uint8) for left in masks]
    files = [uri(png(plane), "image/png") for plane in planes]
    voices = [uri(speech(1.0), "audio/wav")] * 2
    fields = {"model": "skyreels-v3-avatar", "prompt": "they talk", "images": [uri(portrait(), "image/png")]}
    job = await line.submit(**fields, audio=voices, masks=files)
    await line.run(StageRef(job["id"], "audio"))
    with pytest.raises(StageError, match=r"^masks: .* covers no token of the picture; each must be white") as caught:
        await line.run(StageRef(job["id"], "condition"))
    assert not caught.value.retryable


async def test_two_speakers_are_heard_at_once_in_a_webm(line: Line) -> None:
    """As the audio encoder hears them: both from the first frame on."""
    voices = [speech(2.0, 48_000), speech(1.0, 16_000)]
    job = await line.submit(
        model="skyreels-v3-avatar",
        prompt="they talk",
        images=[uri(portrait(), "image/png")],
        audio=[uri(voice, "audio/wav") for voice in voices],
        masks=[mask(left=True), mask(left=False)],
        output_format="webm",
    )
    job = await line.finish(job["id"])
    assert job["frames"] == 50
    data = await line.content(job["id"])
    assert len(pictures(data)) == 50
    samples, rate, codec = sound_of(data)
    assert (rate, codec) == (48_000, "opus")
    assert abs(len(samples) / rate - 2.0) <= 1 / 25
    one, other = [sound_of(voice)[0] for voice in (voices[0], speech(1.0, 48_000))]
    both = one.copy()
    both[: len(other)] += other
    inner = slice(4_800, -4_800)
    assert np.corrcoef(samples[: len(both)][inner], both[inner])[0, 1] > 0.98
    assert np.corrcoef(samples[: len(both)][inner], one[inner])[0, 1] < 0.98


@pytest.mark.parametrize("output_format", ["mp4", "webm"])
async def test_a_stitched_extension_keeps_the_sound_of_its_source(line: Line, output_format: str) -> None:
    voice = speech(1.25, 48_000)
    source = uri(film(moving(30), sound=voice))
    fields = {"model": "skyreels-v3-extend", "prompt": "on", "video": source, "seconds": 1, "include_source": True}
    job = await line.finish((await line.submit(**fields, output_format=output_format))["id"])
    samples, rate, codec = sound_of(await line.content(job["id"]))
    assert codec == ("opus" if output_format == "webm" else "aac")
    assert abs(len(samples) / rate - 66 / 24) <= 1 / 24
    known = sound_of(voice)[0]
    inner = slice(4_800, len(known) - 4_800)
    assert np.corrcoef(samples[inner], known[inner])[0, 1] > 0.98
    assert np.abs(samples[round(1.3 * rate) :]).max() < 0.01


async def test_a_source_whose_sound_is_damaged_is_refused_only_where_it_would_be_heard(line: Line) -> None:
    whole = film(moving(30), sound=speech(1.25, 48_000))
    with av.open(io.BytesIO(whole)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.size]
    # The pictures stay whole: only bytes of the sound are overwritten.
    damaged = bytearray(whole)
    for packet in packets[10:40]:
        damaged[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    fields = {"model": "skyreels-v3-extend", "prompt": "on", "video": uri(bytes(damaged)), "seed": 7}
    refused = await line.edge.client.post("/v1/videos", json={**fields, "include_source": True})
    assert refused.status_code == 400
    assert "video: The sound is damaged" in refused.json()["error"]["message"]
    assert (await line.edge.client.post("/v1/videos", json=fields)).status_code == 200


EXTENSION = {"model": "skyreels-v3-extend", "prompt": "on", "video": SOURCE, "seconds": 6}
AVATAR = {
    "model": "skyreels-v3-avatar",
    "prompt": "she speaks",
    "images": [uri(portrait(), "image/png")],
    "audio": uri(speech(3.24), "audio/wav"),
}


@pytest.mark.parametrize(("fields", "chunks"), [(EXTENSION, 2), (AVATAR, 2)], ids=["extension", "avatar"])
async def test_each_result_of_a_chain_is_that_of_its_seed_alone(
    line: Line, fields: dict[str, Any], chunks: int
) -> None:
    both = await line.finish((await line.submit(**fields, n=2))["id"])
    alone = await line.finish((await line.submit(**fields, seed=8))["id"])
    first, second = [pictures(await line.content(both["id"], index=index)) for index in (0, 1)]
    assert np.array_equal(second, pictures(await line.content(alone["id"])))
    assert not np.array_equal(first, second)
    done = [ref for ref in line.done if ref.job_id == both["id"]]
    assert sorted((ref.result, ref.chunk) for ref in done if ref.stage == "denoise") == sorted(
        {(ref.result, ref.chunk) for ref in done if ref.stage == "decode"}
    )
    assert sum(ref.stage == "denoise" for ref in done) == 2 * chunks
    assert sum(ref.stage in {"text", "audio"} for ref in done) <= 2  # once for both


async def test_a_finished_video_is_extended_and_remixed(line: Line) -> None:
    first = await line.finish(
        (await line.submit(model="skyreels-v3-extend", prompt="it rolls", video=SOURCE, seconds=1))["id"]
    )
    post = line.edge.client.post
    extended = await post("/v1/videos/extensions", json={"prompt": "on", "video": {"id": first["id"]}, "seconds": "1"})
    remixed = await post(f"/v1/videos/{first['id']}/remix", json={"prompt": "[CUT_AWAY] rain", "seconds": 2})
    for response, model, frames in ((extended, "skyreels-v3-extend", 36), (remixed, "skyreels-v3-shot", 49)):
        assert response.status_code == 200, response.text
        job = response.json()
        assert (job["model"], job["frames"], job["remixed_from_video_id"]) == (model, frames, first["id"])
    stranger = await post("/v1/videos/extensions", json={"prompt": "on", "video": {"id": "video_none"}})
    assert stranger.status_code == 404


async def test_webm_and_pictures_are_joined_over_chunks(line: Line) -> None:
    fields = {"model": "skyreels-v3-extend", "prompt": "on", "video": SOURCE, "seconds": 1, "include_source": True}
    job = await line.finish((await line.submit(**fields, output_format="webm"))["id"])
    frames = pictures(await line.content(job["id"]))
    assert frames.shape == (66, 64, 112, 3)
    sheet = Image.open(io.BytesIO(await line.content(job["id"], variant="spritesheet")))
    assert sheet.size == (5 * 112, 5 * 64)
    last = np.asarray(sheet.convert("RGB"))[-64:, -112:]
    shown = Image.open(io.BytesIO(await line.content(job["id"], variant="thumbnail"))).convert("RGB")
    # They are coded with other losses than the video.
    for picture, index in ((last, 65), (np.asarray(shown), 33)):
        away = [np.abs(picture.astype(int) - frame).mean() for frame in frames]
        assert int(np.argmin(away)) == index
