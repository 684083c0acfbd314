"""One process's part of a group that shares the VAE: its band of every picture (`components.vae_parallel`).

Pixels stay inside: every rank reads the inputs itself, rank 0 writes conditions, and encodes and writes segments. A run
has no state to be saved: after a break it starts over, and writes equal segments under equal names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from cluster.config import Config
from cluster.errors import StageError
from cluster.pools import Pool
from cluster.records import Media, Request, StageWork
from cluster.registry import MODELS
from cluster.windows import WINDOW_FRAMES
from components import checkpoints
from components.image import letterbox
from components.known import encode_known
from components.media.image import read
from components.vae import Vae
from components.vae_parallel import share_decode, share_encode
from components.values import AudioFeatures, Frames, Latents, Pixels, Value
from deployments.cut import Cut, cut_of
from deployments.decoding import made
from deployments.group import commands
from deployments.group.commands import Command, Done
from deployments.group.member import Member
from deployments.hints import Hints
from deployments.portrait import masks_of, portrait_of, surroundings
from deployments.scratch import Scratch
from deployments.segments import SegmentWriter, Written
from deployments.source import prefix_of


class VaeMember(Member):
    """See `Member`."""

    def __init__(self, config: Config, pool: Pool, rank: int) -> None:
        """As `Member`."""
        super().__init__(config, pool, rank)
        self._vaes: dict[str, Vae] = {}  # by model
        self._scratch = Scratch(config.state_path / "scratch")
        self._runs: dict[str, _Encode | _Decode] = {}

    def _carry_out(self, command: Command) -> Done:
        match command:
            case commands.Load(model, instead_of):
                self._load(model, instead_of)
            case commands.Prepare(job, work, hints):
                self._runs[job] = self._build(work, hints)
            case commands.Step(job):
                return self._step(self._runs[job])
            case commands.Finish(job, key):
                return self._finish(self._runs[job], key)
            case commands.Drop(job):
                if (run := self._runs.pop(job, None)) is not None:
                    self._io.run(run.close())
            case commands.Snapshot(job, _):
                raise TypeError(f"{job} shares the VAE, where nothing is saved")
        return Done()

    def _load(self, model: str, instead_of: str | None) -> None:
        if instead_of is not None:
            self._vaes.pop(instead_of, None)  # the old weights go before the new ones come
            self._empty()
        served = next(served for served in self._config.models if served.name == model)
        vae = Vae.load(checkpoints.resolve(*served.encoders), self._placement)
        share_encode(vae)
        share_decode(vae)
        self._vaes[model] = vae

    def _build(self, work: StageWork, hints: Hints) -> _Encode | _Decode:
        request = work.request
        vae = self._vaes.get(request.model)
        if vae is None:
            raise RuntimeError(f"{request.model} is not loaded")
        if work.call.ref.stage == "condition":
            return self._encode(vae, work, hints)
        latents = self._open(work.inputs["latents"], hints, Latents)
        if self._rank:
            return _Decode(vae.decode_float(latents))
        stored, cut = _Stored(), cut_of(work)
        writer = None
        if cut.piece is not None:
            writer = SegmentWriter(work, cut.piece, self._artifacts, stored, self._scratch.path)
        portrait = self._portrait(request) if MODELS[request.model].graph == "avatar" else None
        return _DecodeAndWrite(made(vae, request, latents, portrait), cut, writer, stored)

    def _encode(self, vae: Vae, work: StageWork, hints: Hints) -> _Encode:
        request, max_pixels = work.request, self._config.media.max_image_pixels
        match MODELS[request.model].graph:
            case "extend" | "shot":
                tail = self._open(work.inputs["tail"], hints, Frames) if "tail" in work.inputs else self._source(work)
                return _Encode([lambda: vae.encode_prefix(tail.frames_FYXC)])
            case "avatar":
                return self._window(vae, work, hints)
        images = [
            letterbox(read(data, max_pixels=max_pixels), request.height, request.width)
            for data in self._files(request.images)
        ]
        return _Encode([partial(vae.encode_references, image[None]) for image in images])

    def _window(self, vae: Vae, work: StageWork, hints: Hints) -> _Encode:
        inputs = work.inputs
        first = self._open(inputs["tail"], hints, Pixels) if "tail" in inputs else self._portrait(work.request)
        key = self._open(inputs["key"], hints, Pixels) if "key" in inputs else None
        beside: Mapping[str, Value] = {}
        if self._rank == 0:
            features = self._open(inputs["audio"], hints, AudioFeatures)
            beside = surroundings(work, features, self._files(masks_of(work)), self._config.media)
        return _Encode([lambda: encode_known(vae, first, key, WINDOW_FRAMES)], beside)

    def _portrait(self, request: Request) -> Pixels:
        return portrait_of(request, self._files(request.images)[0], self._config.media)

    def _files(self, media: Sequence[Media]) -> Sequence[bytes]:
        return [self._io.run(self._artifacts.get_bytes(medium.uri, medium.sha256)) for medium in media]

    def _source(self, work: StageWork) -> Frames:
        if work.request.video is None:
            raise StageError("The job has no video.", retryable=False)
        with self._io.run(self._artifacts.open_input(work.request.video.uri)) as file:
            return prefix_of(work.request, file, self._config.media)

    def _step(self, run: _Encode | _Decode) -> Done:
        with self._together():
            run.compute()
        run.step += 1
        self._io.run(run.store())
        return Done(run.step, segments=run.segments())

    def _finish(self, run: _Encode | _Decode, key: str) -> Done:
        if isinstance(run, _Encode):
            return self._write(run.step, key, {"condition": run.condition, **run.beside})
        self._io.run(run.finish())
        return replace(self._write(run.step, key, run.handed), segments=run.segments())


class _Encode:
    """Conditions, one a step; `beside` them is what needs no VAE, by port."""

    def __init__(self, encodes: Sequence[Callable[[], Value]], beside: Mapping[str, Value] | None = None) -> None:
        self.step = 0
        self.beside = beside or {}
        self._encodes = encodes
        self._parts: list[Value] = []

    def compute(self) -> None:
        self._parts.append(self._encodes[self.step]())

    @property
    def condition(self) -> Value:
        """All of them as one."""
        if len(self._parts) == 1:
            return self._parts[0]
        rows = [part.tensors() for part in self._parts]
        return type(self._parts[0]).from_tensors({name: torch.cat([row[name] for row in rows]) for name in rows[0]})

    async def store(self) -> None:
        """The condition is written as a whole."""

    async def close(self) -> None:
        """Holds nothing but memory."""

    def segments(self) -> tuple[Written, ...]:
        return ()


class _Decode:
    """Latents, one frame of them a step. Ranks other than 0 need no pixels and let them fall."""

    def __init__(self, chunks: Iterator[Any]) -> None:
        self.step = 0
        self._chunks = chunks
        self._chunk: Any = None

    def compute(self) -> None:
        self._chunk = next(self._chunks)

    @property
    def handed(self) -> Mapping[str, Value]:
        """What the next chunk gets of the frames, by port."""
        return {}

    async def store(self) -> None:
        self._chunk = None

    async def finish(self) -> None:
        """Rank 0 has work left."""

    async def close(self) -> None:
        """Holds nothing but memory."""

    def segments(self) -> tuple[Written, ...]:
        return ()


class _DecodeAndWrite(_Decode):
    """The same on rank 0, whose pixels go straight into the encoder, or are handed on."""

    def __init__(self, chunks: Iterator[Any], cut: Cut, writer: SegmentWriter | None, stored: _Stored) -> None:
        super().__init__(chunks)
        self._cut = cut
        self._writer = writer
        self._stored = stored

    @property
    def handed(self) -> Mapping[str, Value]:
        return self._cut.handed()

    async def store(self) -> None:
        kept = self._cut.pass_on(self._chunk)
        if self._writer is not None and len(kept):
            await self._writer.write(kept)

    async def finish(self) -> None:
        if self._writer is not None:
            await self._writer.finish()

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close()

    def segments(self) -> tuple[Written, ...]:
        return self._stored.take()


class _Stored:
    """Segments that the controller does not know of yet; it tells the job store."""

    def __init__(self) -> None:
        self._segments: list[Written] = []

    async def add(self, segments: Iterable[Written]) -> None:
        """See `Rows.add`."""
        self._segments.extend(segments)

    async def finish(self) -> None:
        """See `Rows.finish`; nobody is told from here."""

    def take(self) -> tuple[Written, ...]:
        segments, self._segments = tuple(self._segments), []
        return segments
