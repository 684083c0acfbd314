"""The stages of a talking portrait: what is heard, what is seen, and what each pass knows beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import BinaryIO

import numpy as np
import torch

from cluster.config import MediaLimits
from cluster.errors import StageError
from cluster.plans import TOKEN_PIXELS
from cluster.records import Media, Request, StageWork
from cluster.windows import WINDOW_FRAMES, sound_index, windows
from components import audio, vision
from components.audio import AudioEncoder, frames_of, window
from components.dit.speech import region_tokens
from components.image import cover, cover_mask
from components.known import encode_known
from components.media.image import read
from components.media.sound import ENCODER_RATE, read_sound
from components.vae import Vae
from components.values import AudioFeatures, ImageTokens, KnownFrames, Pixels, Regions, Value
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


def of_portrait(room: Room) -> dict[str, object]:
    """What an encoding of the portrait alone depends on."""
    request = room.request
    return {"image": request.images[0].sha256, "height": request.height, "width": request.width}


class AudioStage:
    """Voices → AudioFeatures."""

    def __init__(self, weights: Weights) -> None:
        self._encoders = weights.load(AudioEncoder.load, {"avatar"})
        self._weights = weights.identify([audio.FOLDER], {"avatar"})

    async def run(self, room: Room) -> Produced:
        request = room.request
        inputs = {"voices": [voice.sha256 for voice in request.audio], "frames": request.frames}
        weights = self._weights[request.model]
        return Produced({"audio": await room.recall(AudioFeatures, weights, inputs, lambda: self._encode(room))})

    async def _encode(self, room: Room) -> AudioFeatures:
        async with AsyncExitStack() as stack:
            files = [await stack.enter_async_context(input_file(room, voice)) for voice in room.request.audio]
            waves = await room.compute(voices, files, room.request)
        return await room.compute(self._encoders[room.request.model].encode, waves)


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
        self._weights = weights.identify([vision.FILE, vision.FOLDER], {"avatar", "i2v"})
        self._media = weights.config.media

    async def run(self, room: Room) -> Produced:
        if "tail" in room.work.inputs:
            return Produced({"image": await self._encode(room, await room.open("tail", Pixels))})
        weights = self._weights[room.request.model]
        return Produced(
            {"image": await room.recall(ImageTokens, weights, of_portrait(room), lambda: self._portrait(room))}
        )

    async def _portrait(self, room: Room) -> ImageTokens:
        return await self._encode(room, await stored_portrait(room, self._media))

    async def _encode(self, room: Room, image: Pixels) -> ImageTokens:
        return await room.compute(self._encoders[room.request.model].encode, image)


class WindowCondition:
    """What one pass knows beforehand → KnownFrames and AudioWindow, and once Regions."""

    def __init__(self, vaes: Mapping[str, Vae], weights: Mapping[str, str], limits: MediaLimits) -> None:
        """`weights` names those of each model's VAE, as `Weights.identify`."""
        self._vaes = vaes
        self._weights = weights
        self._limits = limits

    async def run(self, room: Room) -> Produced:
        request, chunk = room.request, room.work.call.ref.chunk
        if chunk == 0:  # the others go on from a seed's own frames
            weights = self._weights[request.model]
            known = await room.recall(KnownFrames, weights, of_portrait(room), lambda: self._known(room))
        else:
            known = await self._known(room)
        features = await room.open("audio", AudioFeatures)
        masks = [await input_bytes(room, mask) for mask in masks_of(room.work)]
        return Produced(
            {"condition": known, **await room.compute(surroundings, room.work, features, masks, self._limits)}
        )

    async def _known(self, room: Room) -> KnownFrames:
        inputs = room.work.inputs
        handed = "tail" in inputs
        first = await room.open("tail", Pixels) if handed else await stored_portrait(room, self._limits)
        key = await room.open("key", Pixels) if "key" in inputs else None
        return await room.compute(encode_known, self._vaes[room.request.model], first, key, WINDOW_FRAMES)


def masks_of(work: StageWork) -> Sequence[Media]:
    """The masks that a pass's condition reads: the key-frame pass makes the regions for all."""
    return work.request.masks if work.call.ref.chunk == 0 else ()


def surroundings(
    work: StageWork, features: AudioFeatures, masks: Sequence[bytes], limits: MediaLimits
) -> Mapping[str, Value]:
    """What a pass knows beside its frames, by port: what it hears and, of the first pass, where the speakers are.

    Args:
        work: of the pass's condition.
        features: of the whole sound.
        masks: the files of `masks_of`.
        limits: of a mask's size.

    Raises:
        MediaError: a mask is damaged.
    """
    request, chunk = work.request, work.call.ref.chunk
    heard = window(features, sound_index(windows(request.frames)[chunk], request.frames))
    return {"audio": heard} | ({} if chunk else {"regions": regions(request, masks, limits)})


def regions(request: Request, masks: Sequence[bytes], limits: MediaLimits) -> Regions:
    """Two speakers' masks (white inside) and the rest of the picture, at the video's size.

    Raises:
        MediaError: a mask is damaged.
        StageError: one, or what both leave black, is too small for the model to see.
    """
    if not masks:
        return Regions.none()
    planes = []
    for data in masks:
        grey_YX = torch.from_numpy(np.asarray(read(data, max_pixels=limits.max_image_pixels).convert("L")).copy())
        planes.append(cover_mask(grey_YX > 127, request.height, request.width))
    speakers_RYX = torch.stack(planes)
    rest_YX = (speakers_RYX.sum(dim=0) == 0).to(speakers_RYX)
    found = Regions(torch.cat([speakers_RYX, rest_YX[None]]))
    try:
        region_tokens(found.masks_RYX, request.height // TOKEN_PIXELS, request.width // TOKEN_PIXELS)
    except ValueError as error:
        raise StageError(
            f"masks: {error}; each must be white over its speaker, beyond {TOKEN_PIXELS} × {TOKEN_PIXELS} pixels of "
            "the video, and both must leave some of it black.",
            retryable=False,
        ) from error
    return found
