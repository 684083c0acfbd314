"""The table of stages that compute in their replica's process.

Adding one is one component, one class here, one row in `STAGES`, one graph node. Denoising runs in a group of ranks
instead (`deployments.group`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster.config import Config
from cluster.errors import NotFound, StageError
from cluster.pools import Pool
from cluster.records import Media, Request
from components import checkpoints
from components.device import Placement
from components.image import letterbox
from components.media.image import read
from components.text import TextEncoder
from components.vae import Vae
from components.values import Condition, Latents
from deployments.artifacts import ArtifactStore
from deployments.call import Call, Result
from deployments.failures import translated
from deployments.final import final_file
from deployments.room import Computation, Produced, Room
from deployments.segments import SegmentRows, SegmentWriter
from deployments.transport import Transport
from deployments.transport_ray import open_transport

CACHE_NBYTES = 512 * 2**20  # hand-off values kept in the process; the durable copy serves everybody else


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a pool finds the weights of each served model, and where it puts them."""

    config: Config
    roots: Mapping[str, Path]  # by canonical model name
    placement: Placement


def resolve(config: Config, pool: Pool) -> Weights:
    """Finds (or downloads) every served checkpoint. CheckpointMismatch, Unsupported."""
    roots = {served.name: checkpoints.resolve(served.checkpoint, served.revision) for served in config.models}
    return Weights(config, roots, Placement.of("cuda" if pool.num_gpus > 0 else "cpu"))


class TextStage:
    """Prompt → TextContext."""

    def __init__(self, weights: Weights) -> None:
        self._encoders = {name: TextEncoder.load(root, weights.placement) for name, root in weights.roots.items()}

    async def run(self, room: Room) -> Produced:
        request = room.request
        negative = request.negative_prompt if request.guidance > 1 else None
        encoder = self._encoders[request.model]
        return Produced({"context": await room.compute(encoder.encode, request.prompt, negative)})


class ConditionStage:
    """Reference images → Condition."""

    def __init__(self, weights: Weights) -> None:
        self._vaes = {name: Vae.load(root, weights.placement) for name, root in weights.roots.items()}
        self._max_pixels = weights.config.media.max_image_pixels

    async def run(self, room: Room) -> Produced:
        with room.laps.lap("get"):
            files = [await _input(room, image) for image in room.request.images]
        return Produced({"condition": await room.compute(self._encode, room.request, files)})

    def _encode(self, request: Request, files: Sequence[bytes]) -> Condition:
        images = [letterbox(read(data, max_pixels=self._max_pixels), request.height, request.width) for data in files]
        return self._vaes[request.model].encode_references(torch.stack(images))


async def _input(room: Room, media: Media) -> bytes:
    """An input file as it was stored. StageError, Damaged, Unavailable."""
    try:
        return await room.artifacts.get_bytes(media.uri, media.sha256)
    except NotFound as error:
        raise StageError("A stored input of the job is gone; send the request again.", retryable=False) from error


class DecodeStage:
    """Latents → segments → MP4. Frames leave the VAE a few at a time and go straight into the encoder; the file is a
    stream copy of the stored segments.
    """

    def __init__(self, weights: Weights) -> None:
        self._vaes = {name: Vae.load(root, weights.placement) for name, root in weights.roots.items()}

    async def run(self, room: Room) -> Produced:
        request = room.request
        latents = await room.open("latents", Latents)
        chunks = self._vaes[request.model].decode(latents)
        steps = latents.video_BCTHW.shape[2]
        rows = SegmentRows(room)
        async with SegmentWriter(room.work, room.artifacts, rows, room.scratch) as writer:
            step = 0
            while (frames := await room.compute(next, chunks, None)) is not None:
                room.lease.advance(step, steps)
                with room.laps.lap("segments"):
                    await writer.write(frames)
                step += 1
            with room.laps.lap("segments"):
                await writer.finish()
        room.lease.advance(steps, steps)
        with room.laps.lap("file"):
            return Produced(artifact=await final_file(room, rows.files))


STAGES: Mapping[str, Callable[[Weights], Computation]] = {
    "text": TextStage,
    "condition": ConditionStage,
    "decode": DecodeStage,
}


class ComputingStage:
    """A stage whose component computes in this process, on threads of its own."""

    def __init__(self, computation: Computation, transport: Transport, executor: Executor) -> None:
        self._computation = computation
        self._transport = transport
        self._executor = executor

    async def run(self, call: Call) -> Result:
        room = Room(
            lease=call.lease,
            store=call.store,
            artifacts=call.artifacts,
            metrics=call.metrics,
            scratch=call.scratch,
            hints=call.hints,
            laps=call.laps,
            transport=self._transport,
            executor=self._executor,
        )
        try:
            with translated():
                produced = await self._computation.run(room)
            call.lease.check()
            return await room.close(produced)
        finally:
            self._transport.release(call.key(""))
            call.metrics.handoff.publish(self._transport.counters)

    def drain(self, deadline_s: float | None) -> None:
        """Its calls are short: they end by themselves."""

    @property
    def ailment(self) -> str | None:
        return None

    async def close(self) -> None:
        self._executor.shutdown(wait=False)


def load(config: Config, pool: Pool, artifacts: ArtifactStore) -> dict[str, ComputingStage]:
    """Loads the weights of every stage of a pool that computes in this process; only these live in it."""
    torch.set_num_threads(pool.threads)
    weights = resolve(config, pool)
    transport = open_transport(config, artifacts, cache_nbytes=CACHE_NBYTES)
    return {
        name: ComputingStage(STAGES[name](weights), transport, ThreadPoolExecutor(pool.slots_of(name), name))
        for name in pool.stages
        if name in STAGES and name not in pool.grouped
    }
