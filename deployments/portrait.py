"""The stages of a talking portrait: what is heard, what is seen, and what each pass knows beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import BinaryIO

import numpy as np
import torch

from cluster.config import MediaLimits
from cluster.errors import StageError
from cluster.records import Request
from cluster.windows import WINDOW_FRAMES, sound_index, windows
from components import vision
from components.audio import AudioEncoder, frames_of, window
from components.image import cover, cover_mask
from components.known import encode_known
from components.media.image import read
from components.media.sound import ENCODER_RATE, read_sound
from components.vae import Vae
from components.values import AudioFeatures, Pixels, Regions, Value
from components.vision import VisionEncoder
from deployments.inputs import input_bytes, input_file
from deployments.room import Produced, Room
from deployments.weights import Weights


def portrait_of(request: Request, data: bytes, limits: MediaLimits) -> Pixels:
    """The portrait at the video's size. MediaError."""
    image = read(data, max_pixels=limits.max_image_pixels)
    return Pixels(cover(image, request.height, request.width)[:, None])


async def stored_portrait(room: Room, limits: MediaLimits) -> Pixels:
    """The same from the job's inputs. StageError, Damaged, Unavailable, MediaError."""
    return await room.compute(portrait_of, room.request, await input_bytes(room, room.request.images[0]), limits)


class AudioStage:
    """Voices → AudioFeatures."""

    def __init__(self, weights: Weights) -> None:
        self._encoders = weights.load(AudioEncoder.load, {"avatar"})

    async def run(self, room: Room) -> Produced:
        async with AsyncExitStack() as stack:
            files = [await stack.enter_async_context(input_file(room, voice)) for voice in room.request.audio]
            waves = await room.compute(voices, files, room.request)
        return Produced({"audio": await room.compute(self._encoders[room.request.model].encode, waves)})


def voices(files: Sequence[BinaryIO], request: Request) -> list[np.ndarray]:
    """16 kHz mono fp32 [S] in [-1, 1], all as long as the longest: a speaker whose voice ends earlier is silent.

    Raises:
        MediaError: one cannot be read.
        StageError: they are not as long as the request says.
    """
    waves = [read_sound(file) for file in files]
    longest = max(len(wave) for wave in waves)
    if frames_of(longest) != request.frames:
        raise StageError(
            f"The sound lasts {longest / ENCODER_RATE:g} s, which is not what was asked for.", retryable=False
        )
    return [np.pad(wave, (0, longest - len(wave))) for wave in waves]


class VisionStage:
    """The portrait, or the first frame handed on by the window before → ImageTokens."""

    def __init__(self, weights: Weights) -> None:
        self._encoders = weights.load(VisionEncoder.load, {"avatar", "i2v"}, file=vision.FILE)
        self._media = weights.config.media

    async def run(self, room: Room) -> Produced:
        handed = "tail" in room.work.inputs
        first = await room.open("tail", Pixels) if handed else await stored_portrait(room, self._media)
        return Produced({"image": await room.compute(self._encoders[room.request.model].encode, first)})


class WindowCondition:
    """What one pass knows beforehand → KnownFrames and AudioWindow, and once Regions."""

    def __init__(self, vaes: Mapping[str, Vae], limits: MediaLimits) -> None:
        self._vaes = vaes
        self._limits = limits

    async def run(self, room: Room) -> Produced:
        request, chunk, inputs = room.request, room.work.call.ref.chunk, room.work.inputs
        handed = "tail" in inputs
        first = await room.open("tail", Pixels) if handed else await stored_portrait(room, self._limits)
        key = await room.open("key", Pixels) if "key" in inputs else None
        known = await room.compute(encode_known, self._vaes[request.model], first, key, WINDOW_FRAMES)
        features = await room.open("audio", AudioFeatures)
        index = sound_index(windows(request.frames)[chunk], request.frames)
        values: dict[str, Value] = {"condition": known, "audio": await room.compute(window, features, index)}
        if chunk == 0:
            masks = [await input_bytes(room, mask) for mask in request.masks]
            values["regions"] = await room.compute(regions, request, masks, self._limits)
        return Produced(values)


def regions(request: Request, masks: Sequence[bytes], limits: MediaLimits) -> Regions:
    """Two speakers' masks (white inside) and the rest of the picture, at the video's size. MediaError."""
    if not masks:
        return Regions.none()
    planes = []
    for data in masks:
        grey_YX = torch.from_numpy(np.asarray(read(data, max_pixels=limits.max_image_pixels).convert("L")).copy())
        planes.append(cover_mask(grey_YX > 127, request.height, request.width))
    speakers_RYX = torch.stack(planes)
    rest_YX = (speakers_RYX.sum(dim=0) == 0).to(speakers_RYX)
    return Regions(torch.cat([speakers_RYX, rest_YX[None]]))
