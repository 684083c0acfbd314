"""What a chunk of diffusion forcing begins and ends with: images, the end of a video or of the chunk before."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.chains import ends
from cluster.config import MediaLimits
from components.known import encode_ends
from components.vae import Vae
from components.values import EndsCondition, Pixels
from deployments.inputs import input_bytes, input_file
from deployments.portrait import portrait_of
from deployments.room import Room
from deployments.source import prefix_of


class Ends:
    """Images, a video or handed frames → EndsCondition."""

    def __init__(self, vaes: Mapping[str, Vae], limits: MediaLimits) -> None:
        self._vaes = vaes
        self._limits = limits

    async def run(self, room: Room) -> EndsCondition:
        request, chunk = room.request, room.work.call.ref.chunk
        _, held = ends(request, chunk)
        first = last = None
        if "tail" in room.work.inputs:
            first = await room.open("tail", Pixels)
        elif request.images:
            first = await self._image(room, 0)
        elif request.video is not None:
            async with input_file(room, request.video) as file:
                frames = await room.compute(prefix_of, request, file, self._limits)
            first = Pixels(frames.frames_FYXC.permute(3, 0, 1, 2).float() / 127.5 - 1)
        if held:
            last = await self._image(room, 1)
        return await room.compute(encode_ends, self._vaes[request.model], first, last, request.height, request.width)

    async def _image(self, room: Room, index: int) -> Pixels:
        data = await input_bytes(room, room.request.images[index])
        return await room.compute(portrait_of, room.request, data, self._limits)
