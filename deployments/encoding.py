"""The stages that turn a request's text, images and videos into what the denoiser attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import torch

from cluster.chains import prefix_frames
from cluster.config import MediaLimits
from cluster.records import Request
from cluster.registry import MODELS
from components import vae_hunyuan, vae_original
from components.image import cover, letterbox
from components.media.image import read
from components.vae import Vae
from components.vae_hunyuan import HunyuanVae
from components.values import Condition, FirstFrame, Frames, PrefixCondition
from deployments.inputs import input_bytes, input_file
from deployments.portrait import WindowCondition
from deployments.room import Produced, Room
from deployments.source import open_source
from deployments.text_encoders import encoded, load_encoders
from deployments.weights import Weights, kinds_of


class TextStage:
    """Prompt → TextContext, or PooledContext."""

    def __init__(self, weights: Weights) -> None:
        self._encoders = load_encoders(weights)

    async def run(self, room: Room) -> Produced:
        return Produced(await room.compute(encoded, self._encoders[room.request.model], room.request))


class ConditionStage:
    """Reference images → Condition; the end of a video, or of the roll before → PrefixCondition; `WindowCondition`;
    the first frame → FirstFrame.
    """

    def __init__(self, weights: Weights) -> None:
        self._vaes = weights.load(Vae.load, kinds_of("wan"), vae_original.FILE)
        self._hunyuan_vaes = weights.load(HunyuanVae.load, {"v1-i2v"}, vae_hunyuan.WEIGHTS)
        self._media = weights.config.media
        self._windows = WindowCondition(self._vaes, self._media)

    async def run(self, room: Room) -> Produced:
        request = room.request
        match MODELS[request.model].graph:
            case "extend" | "shot":
                return Produced({"condition": await self._prefix(room)})
            case "avatar":
                return await self._windows.run(room)
            case "v1-i2v":
                data = await input_bytes(room, request.images[0])
                return Produced({"condition": await room.compute(self._first_frame, request, data)})
        with room.laps.lap("get"):
            files = [await input_bytes(room, image) for image in request.images]
        return Produced({"condition": await room.compute(self._encode, request, files)})

    async def _prefix(self, room: Room) -> PrefixCondition:
        request = room.request
        if "tail" in room.work.inputs:
            tail = await room.open("tail", Frames)
        else:
            async with input_file(room, request.video) as file:
                tail = await room.compute(prefix_of, request, file, self._media)
        return await room.compute(self._vaes[request.model].encode_prefix, tail.frames_FYXC)

    def _first_frame(self, request: Request, data: bytes) -> FirstFrame:
        image = read(data, max_pixels=self._media.max_image_pixels)
        return self._hunyuan_vaes[request.model].encode_first(cover(image, request.height, request.width))

    def _encode(self, request: Request, files: Sequence[bytes]) -> Condition:
        images = [
            letterbox(read(data, max_pixels=self._media.max_image_pixels), request.height, request.width)
            for data in files
        ]
        return self._vaes[request.model].encode_references(torch.stack(images))


def prefix_of(request: Request, file: BinaryIO, limits: MediaLimits) -> Frames:
    """The end of a stored video at the size of the new one. MediaError."""
    size = {"height": request.height, "width": request.width, "fps": request.fps}
    tail = open_source(request, file, limits).tail(prefix_frames(request), **size)
    return Frames(torch.from_numpy(tail))
