"""The stages that turn a request's text, images and videos into what the denoiser attends to."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cluster.records import Request
from cluster.registry import MODELS
from components import text_original, vae_original
from components.denoiser.avatar import CONNECTION_PROMPT
from components.image import letterbox
from components.known import encode_known
from components.media.image import read
from components.text import TextEncoder
from components.vae import Vae
from components.values import Condition, Frames, PrefixCondition
from deployments.ends import Ends
from deployments.inputs import input_bytes, input_file
from deployments.portrait import WindowCondition, stored_portrait
from deployments.room import Produced, Room
from deployments.source import prefix_of
from deployments.weights import Weights


class TextStage:
    """Prompt → TextContext."""

    def __init__(self, weights: Weights) -> None:
        self._encoders = weights.load(TextEncoder.load, file=text_original.FILE)

    async def run(self, room: Room) -> Produced:
        request = room.request
        negative = request.negative_prompt if request.guidance > 1 else None
        encoder = self._encoders[request.model]
        values = {"context": await room.compute(encoder.encode, request.prompt, negative)}
        if MODELS[request.model].graph == "avatar":
            values["connection"] = await room.compute(encoder.encode, CONNECTION_PROMPT, negative)
        return Produced(values)


class ConditionStage:
    """Reference images → Condition; the end of a video, or of the roll before → PrefixCondition; a first frame →
    KnownFrames; `WindowCondition`, `Ends`.
    """

    def __init__(self, weights: Weights) -> None:
        self._vaes = weights.load(Vae.load, file=vae_original.FILE)
        self._media = weights.config.media
        self._windows = WindowCondition(self._vaes, self._media)
        self._ends = Ends(self._vaes, self._media)

    async def run(self, room: Room) -> Produced:
        request = room.request
        match MODELS[request.model].graph:
            case "extend" | "shot":
                return Produced({"condition": await self._prefix(room)})
            case "avatar":
                return await self._windows.run(room)
            case "i2v":
                first = await stored_portrait(room, self._media)
                vae = self._vaes[request.model]
                return Produced({"condition": await room.compute(encode_known, vae, first, None, request.frames)})
            case "df":
                return Produced({"condition": await self._ends.run(room)})
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

    def _encode(self, request: Request, files: Sequence[bytes]) -> Condition:
        images = [
            letterbox(read(data, max_pixels=self._media.max_image_pixels), request.height, request.width)
            for data in files
        ]
        return self._vaes[request.model].encode_references(torch.stack(images))
