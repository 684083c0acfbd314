"""Videos and sounds at the door: used, or refused in one sentence before any work."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from cluster.config import parse
from tests.unit.components.media.sounds import encode, tone
from tests.unit.deployments.api.conftest import Edge, open_edge
from tests.unit.deployments.line import film, moving, portrait, speech

CONFIG = """
profile: test
topology: monolith
state_dir: {state}
models:
  - {{name: skyreels-v3-r2v, checkpoint: none, tiny: true}}
  - {{name: skyreels-v3-extend, checkpoint: none, tiny: true}}
  - {{name: skyreels-v3-shot, checkpoint: none, tiny: true}}
  - {{name: skyreels-v3-avatar, checkpoint: none, tiny: true}}
pools: [{{name: All, stages: [text, audio, vision, condition, source, denoise, decode]}}]
"""


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Edge]:
    async with open_edge(tmp_path, config=parse(CONFIG.format(state=tmp_path / "state"), "test")) as edge:
        yield edge


def uri(data: bytes, media_type: str = "application/octet-stream") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def extend(video: bytes, **fields: Any) -> dict[str, Any]:
    return {"model": "skyreels-v3-extend", "prompt": "on", "seconds": 1, "video": uri(video), **fields}


def avatar(*voices: bytes, **fields: Any) -> dict[str, Any]:
    sounds = [uri(voice) for voice in voices]
    images = [uri(portrait())]
    return {"model": "skyreels-v3-avatar", "prompt": "speaks", "images": images, "audio": sounds, **fields}


def uneven(frames: np.ndarray) -> bytes:
    """Every other frame is shown twice as long."""
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 48)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = 3 * index + index % 2, Fraction(1, 48)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return data.getvalue()


def turned() -> bytes:
    """A JPEG that stands on its side until EXIF is obeyed."""
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(moving(1)[0]).save(data, "JPEG", exif=exif)
    return data.getvalue()


def remade(container: str = "mp4", rotation: int = 0, transfer: int = 1) -> bytes:
    """A film that is to be shown rotated, or in another transfer."""
    data = io.BytesIO()
    with av.open(data, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 64, 112, "yuv420p"
        stream.codec_context.color_trc = transfer
        if rotation:
            stream.set_display_rotation(rotation)
        for pixels in moving(30):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    return data.getvalue()


def corrupt_tail(film: bytes) -> bytes:
    """The bytes of its last frames are others."""
    with av.open(io.BytesIO(film)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size][-5:]
    data = bytearray(film)
    for packet in packets:
        data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    return bytes(data)


def see_through() -> bytes:
    """A PNG with alpha."""
    data = io.BytesIO()
    image = Image.fromarray(moving(1)[0]).convert("RGBA")
    image.putalpha(40)
    image.save(data, "PNG")
    return data.getvalue()


def changing() -> bytes:
    """A sound that goes on at another rate and with other channels, as joined MP3 files do."""
    return encode(tone(1, 44_100, 2), 44_100, container="mp3", codec="libmp3lame") + encode(
        tone(1, 22_050), 22_050, container="mp3", codec="libmp3lame"
    )


GOOD = film(moving(30))


async def test_what_can_be_continued_is(door: Edge) -> None:
    for body, size, frames in (
        (extend(GOOD), "112x64", 36),
        (extend(GOOD, include_source=True), "112x64", 66),
        (extend(film(moving(30, 112, 64))), "64x112", 36),
        (extend(uneven(moving(40))), "112x64", 36),
        (extend(film(moving(30), container="webm", codec="libvpx-vp9")), "112x64", 36),
        (extend(GOOD, model="skyreels-v3-shot", seconds=2), "112x64", 49),
        (extend(remade(rotation=90)), "64x112", 36),
        (extend(remade("mov")), "112x64", 36),
    ):
        answer = await door.client.post("/v1/videos", json=body)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["size"], answer.json()["frames"]) == (size, frames)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (extend(film(moving(20))), "at least"),
        (extend(GOOD[: len(GOOD) // 2]), "video: "),
        (extend(portrait()), "video: "),
        (extend(corrupt_tail(GOOD)), "video: "),
        (extend(remade(transfer=16)), "HDR (PQ)"),
        (extend(remade(transfer=18)), "HDR (HLG)"),
        (extend(speech(1.0)), "video: "),
        (extend(b""), "video"),
        ({**extend(GOOD), "video": None}, "one video"),
        (extend(GOOD, images=[uri(portrait())]), "images"),
        (extend(GOOD, aspect_ratio="16:9"), "takes its aspect from the video"),
        (extend(GOOD, size="112x64"), "takes its size from the video"),
        (extend(GOOD, seconds=31), "1 to 30"),
        (extend(GOOD, guidance=2.0), "guidance must be 1"),
        (extend(GOOD, audio=uri(speech(1.0))), "no sound"),
        (extend(GOOD, model="skyreels-v3-shot", seconds=6), "2 to 5"),
        (extend(GOOD, model="skyreels-v3-shot", seconds=2, include_source=True), "cannot put the source first"),
        (avatar(), "1 to 2 sounds"),
        (avatar(speech(0.3)), "0.4"),
        (avatar(portrait()), "audio[0]: "),
        (avatar(speech(1.0)[:100]), "audio[0]: "),
        (avatar(changing()), "changes its sample rate or channels"),
        (avatar(GOOD), "audio[0]: "),
        (avatar(speech(1.0), images=[uri(GOOD)]), "images[0]: "),
        (avatar(speech(1.0), seconds=5), "takes its length from the sound"),
        (avatar(speech(1.0), speech(1.0)), "masks"),
        (avatar(speech(1.0), masks=[uri(portrait())]), "masks"),
        (avatar(speech(1.0), images=[]), "images"),
    ],
)
async def test_what_cannot_is_refused_in_a_sentence(door: Edge, body: dict[str, Any], words: str) -> None:
    answer = await door.client.post("/v1/videos", json={key: value for key, value in body.items() if value is not None})
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert words in message
    assert message.endswith(".") and "\n" not in message
    assert not [path for path in door.files() if "jobs" in path.parts]


@pytest.mark.parametrize(
    ("voice", "frames"),
    [
        (speech(1.0), 25),
        (speech(2.01), 51),
        (encode(np.zeros((1, 16_000), np.float32)), 25),
        (speech(1.0, rate=8_000), 25),
        (speech(1.0, rate=48_000, channels=6), 25),
        (speech(1.0, rate=44_100, channels=2), 25),
    ],
)
async def test_a_sound_sets_the_length(door: Edge, voice: bytes, frames: int) -> None:
    answer = await door.client.post("/v1/videos", json=avatar(voice))
    assert answer.status_code == 200, answer.text
    assert answer.json()["frames"] == frames


async def test_a_portrait_chooses_the_size(door: Edge) -> None:
    images = ((portrait(), "112x64"), (turned(), "64x112"), (portrait(1, 1), "80x80"), (see_through(), "112x64"))
    for image, size in images:
        answer = await door.client.post("/v1/videos", json=avatar(speech(1.0), images=[uri(image)]))
        assert answer.status_code == 200, answer.text
        assert answer.json()["size"] == size


async def test_two_speakers_have_a_mask_each(door: Edge) -> None:
    masks = [uri(portrait()), uri(portrait())]
    answer = await door.client.post("/v1/videos", json=avatar(speech(1.0), speech(2.0), masks=masks))
    assert answer.status_code == 200, answer.text
    assert answer.json()["frames"] == 50


async def test_uploaded_files_are_sources_too(door: Edge) -> None:
    stored = await door.client.post("/v1/files", files={"file": ("a.mp4", GOOD, "video/mp4")})
    body = {**extend(GOOD), "video": {"file_id": stored.json()["id"]}}
    assert (await door.client.post("/v1/videos", json=body)).status_code == 200
    extension = {"prompt": "on", "video": {"id": stored.json()["id"]}, "seconds": 1}
    assert (await door.client.post("/v1/videos/extensions", json=extension)).status_code == 200
    sound = await door.client.post("/v1/files", files={"file": ("a.wav", speech(1.0), "audio/wav")})
    wrong = await door.client.post("/v1/videos", json={**body, "video": {"file_id": sound.json()["id"]}})
    assert "a video is needed" in wrong.json()["error"]["message"]


async def test_a_form_brings_videos_and_sounds(door: Edge) -> None:
    form = {"model": "skyreels-v3-avatar", "prompt": "speaks"}
    files = [("images", ("a.png", portrait(), "image/png")), ("audio", ("a.wav", speech(1.0), "audio/wav"))]
    assert (await door.client.post("/v1/videos", data=form, files=files)).status_code == 200


async def test_files_are_what_their_bytes_are_whatever_they_are_called(door: Edge) -> None:
    form = {"model": "skyreels-v3-avatar", "prompt": "speaks"}
    voice = ("audio", ("a.png", speech(1.0), "image/png"))
    image = ("images", ("a.mp4", portrait(), "video/mp4"))
    assert (await door.client.post("/v1/videos", data=form, files=[image, voice])).status_code == 200
    form = {"model": "skyreels-v3-extend", "prompt": "on"}
    refused = await door.client.post("/v1/videos", data=form, files={"video": ("a.mp4", portrait(), "video/mp4")})
    assert refused.status_code == 400
    assert "The file is no known video" in refused.json()["error"]["message"]


async def test_reference_to_video_is_guided_when_asked(door: Edge) -> None:
    body = {"prompt": "a fox", "images": [uri(portrait())], "aspect_ratio": "4:3", "guidance": 5.0, "seconds": 1}
    answer = await door.client.post("/v1/videos", json={**body, "guidance_image": 2.0, "negative_prompt": "blur"})
    assert answer.status_code == 200, answer.text
    job = await door.store.get_job(answer.json()["id"], door.config.tenant)
    assert (job.request.guidance, job.request.guidance_image, job.request.negative_prompt) == (5.0, 2.0, "blur")
