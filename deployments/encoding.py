"""The stages that turn a request's text, images and videos into what the denoiser attends to."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cluster.chains import prefix_frames
from cluster.records import Request
from cluster.registry import MODELS
from cluster.wiring import PROMPT
from components import text_original, vae_hunyuan, vae_original
from components.denoiser.avatar import CONNECTION_PROMPT
from components.image import cover, letterbox
from components.known import encode_known
from components.media.image import read
from components.text import TextEncoder
from components.text_hunyuan import HunyuanTextEncoder
from components.vae import Vae
from components.vae_hunyuan import HunyuanVae
from components.values import (
    Condition,
    FirstFrame,
    Frames,
    KnownFrames,
    PooledContext,
    PrefixCondition,
    PromptText,
    TextContext,
)
from deployments.ends import Ends
from deployments.inputs import input_bytes, input_file
from deployments.portrait import WindowCondition, of_portrait, stored_portrait
from deployments.room import Produced, Room
from deployments.source import prefix_of
from deployments.text_encoders import load_encoders
from deployments.weights import Weights, kinds_of

TEXT_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", text_original.FILE, text_original.TOKENIZER)
VAE_PARTS = ("vae", vae_original.FILE)
CONSTANT_TEXTS = frozenset(
    {"", CONNECTION_PROMPT, *(model.negative_prompt for model in MODELS.values())}
)  # nobody's secret: encoded once for all tenants


class TextStage:
    """Prompt → TextContext, or PooledContext."""

    def __init__(self, weights: Weights) -> None:
        self._encoders = load_encoders(weights)
        self._llama = weights.pool.llama
        self._weights = weights.identify(TEXT_PARTS)

    async def run(self, room: Room) -> Produced:
        request = room.request
        extended = (await room.open(PROMPT, PromptText)).text if PROMPT in room.work.inputs else None
        texts = {"context": extended or request.prompt}
        encoder = self._encoders[request.model]
        if isinstance(encoder, HunyuanTextEncoder):
            return Produced({"context": await self._pooled_rows(room, encoder, texts["context"])})
        if MODELS[request.model].graph == "avatar":
            texts["connection"] = CONNECTION_PROMPT
        values = {port: await self._rows(room, encoder, text) for port, text in texts.items()}
        if request.guidance > 1:
            negative = await self._rows(room, encoder, request.negative_prompt)
            values = {port: TextContext(rows.prompt_BLD, negative.prompt_BLD) for port, rows in values.items()}
        return Produced(values)

    async def _pooled_rows(self, room: Room, encoder: HunyuanTextEncoder, text: str) -> PooledContext:
        """A text's, beside the negative one where there is guidance."""
        request = room.request
        negative = request.negative_prompt if request.guidance > 1 else None
        return await room.recall(
            PooledContext,
            self._weights[request.model],
            {"text": text, "negative": negative, "llama": self._llama},
            lambda: room.compute(encoder.encode, text, negative),
        )

    async def _rows(self, room: Room, encoder: TextEncoder, text: str) -> TextContext:
        """One text's, without a negative one."""
        return await room.recall(
            TextContext,
            self._weights[room.request.model],
            {"text": text},
            lambda: room.compute(encoder.encode, text, None),
            private=text not in CONSTANT_TEXTS,
        )


class ConditionStage:
    """Reference images → Condition; the end of a video, or of the roll before → PrefixCondition; a first frame →
    KnownFrames or FirstFrame; `WindowCondition`, `Ends`.
    """

    def __init__(self, weights: Weights) -> None:
        self._vaes = weights.load(Vae.load, kinds_of("wan"), vae_original.FILE)
        self._hunyuan_vaes = weights.load(HunyuanVae.load, {"v1-i2v"}, vae_hunyuan.WEIGHTS)
        self._weights = weights.identify(VAE_PARTS)
        self._media = weights.config.media
        self._windows = WindowCondition(self._vaes, self._weights, self._media)
        self._ends = Ends(self._vaes, self._media)

    async def run(self, room: Room) -> Produced:
        request = room.request
        match MODELS[request.model].graph:
            case "extend" | "shot":
                return Produced({"condition": await self._prefix(room)})
            case "avatar":
                return await self._windows.run(room)
            case "i2v":
                return Produced({"condition": await self._first_frame(room)})
            case "df":
                return Produced({"condition": await self._ends.run(room)})
            case "v1-i2v":
                return Produced({"condition": await self._frame(room)})
        images = [image.sha256 for image in request.images]
        inputs = {"images": images, "height": request.height, "width": request.width}
        weights = self._weights[request.model]
        return Produced({"condition": await room.recall(Condition, weights, inputs, lambda: self._references(room))})

    async def _first_frame(self, room: Room) -> KnownFrames:
        request, vae = room.request, self._vaes[room.request.model]

        async def encode() -> KnownFrames:
            first = await stored_portrait(room, self._media)
            return await room.compute(encode_known, vae, first, None, request.frames)

        inputs = {**of_portrait(room), "frames": request.frames}
        return await room.recall(KnownFrames, self._weights[request.model], inputs, encode)

    async def _frame(self, room: Room) -> FirstFrame:
        request = room.request

        async def encode() -> FirstFrame:
            data = await input_bytes(room, request.images[0])
            return await room.compute(self._encode_frame, request, data)

        return await room.recall(FirstFrame, self._weights[request.model], of_portrait(room), encode)

    async def _references(self, room: Room) -> Condition:
        with room.laps.lap("get"):
            files = [await input_bytes(room, image) for image in room.request.images]
        return await room.compute(self._encode, room.request, files)

    async def _prefix(self, room: Room) -> PrefixCondition:
        request = room.request
        if "tail" in room.work.inputs:  # of a seed's own frames: nobody asks for it again
            return await self._encode_prefix(room, await room.open("tail", Frames))
        inputs = {
            "video": None if request.video is None else request.video.sha256,
            "frames": prefix_frames(request),
            "fps": request.fps,
            "height": request.height,
            "width": request.width,
        }
        weights = self._weights[request.model]
        return await room.recall(PrefixCondition, weights, inputs, lambda: self._source_prefix(room))

    async def _source_prefix(self, room: Room) -> PrefixCondition:
        async with input_file(room, room.request.video) as file:
            tail = await room.compute(prefix_of, room.request, file, self._media)
        return await self._encode_prefix(room, tail)

    async def _encode_prefix(self, room: Room, tail: Frames) -> PrefixCondition:
        return await room.compute(self._vaes[room.request.model].encode_prefix, tail.frames_FYXC)

    def _encode_frame(self, request: Request, data: bytes) -> FirstFrame:
        image = read(data, max_pixels=self._media.max_image_pixels)
        return self._hunyuan_vaes[request.model].encode_first(cover(image, request.height, request.width))

    def _encode(self, request: Request, files: Sequence[bytes]) -> Condition:
        images = [
            letterbox(read(data, max_pixels=self._media.max_image_pixels), request.height, request.width)
            for data in files
        ]
        return self._vaes[request.model].encode_references(torch.stack(images))
