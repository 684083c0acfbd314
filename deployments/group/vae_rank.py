"""One process's part of a group that shares the VAE: its band of every picture (`components.vae_parallel`).

Pixels stay inside: every rank reads the inputs itself, rank 0 writes conditions, and encodes and writes segments. A run
has no state to be saved: after a break it starts over, and writes equal segments under equal names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from cluster.config import Config
from cluster.pools import Pool
from cluster.records import StageWork
from components import checkpoints
from components.image import letterbox
from components.media.image import read
from components.vae import Vae
from components.vae_parallel import share_decode, share_encode
from components.values import Condition, Latents
from deployments.group import commands
from deployments.group.commands import Command, Done
from deployments.group.member import Member
from deployments.hints import Hints
from deployments.scratch import Scratch
from deployments.segments import SegmentWriter, Written


class VaeMember(Member):
    """See `Member`."""

    def __init__(self, config: Config, pool: Pool, rank: int) -> None:
        """As `Member`."""
        super().__init__(config, pool, rank)
        self._vae: Vae | None = None
        self._scratch = Scratch(config.state_path / "scratch")
        self._runs: dict[str, _Encode | _Decode] = {}

    def _carry_out(self, command: Command) -> Done:
        match command:
            case commands.Load(model):
                self._load(model)
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

    def _load(self, model: str) -> None:
        self._vae = None  # the old weights go before the new ones come
        self._empty()
        served = next(served for served in self._config.models if served.name == model)
        vae = Vae.load(checkpoints.resolve(served.checkpoint, served.revision), self._placement)
        share_encode(vae)
        share_decode(vae)
        self._vae = vae

    def _build(self, work: StageWork, hints: Hints) -> _Encode | _Decode:
        if self._vae is None:
            raise RuntimeError("no model is loaded")
        request = work.request
        if work.call.ref.stage == "condition":
            files = [self._io.run(self._artifacts.get_bytes(image.uri, image.sha256)) for image in request.images]
            images = [read(data, max_pixels=self._config.media.max_image_pixels) for data in files]
            return _Encode(self._vae, [letterbox(image, request.height, request.width) for image in images])
        latents = self._open(work.inputs["latents"], hints, Latents)
        if self._rank:
            return _Decode(self._vae.decode_float(latents))
        stored = _Stored()
        writer = SegmentWriter(work, self._artifacts, stored, self._scratch.path)
        return _DecodeAndWrite(self._vae.decode(latents), writer, stored)

    def _step(self, run: _Encode | _Decode) -> Done:
        with self._together():
            run.compute()
        run.step += 1
        self._io.run(run.store())
        return Done(run.step, segments=run.segments())

    def _finish(self, run: _Encode | _Decode, key: str) -> Done:
        if isinstance(run, _Encode):
            return self._write(run.step, key, run.condition)
        self._io.run(run.finish())
        return Done(run.step, segments=run.segments())


class _Encode:
    """Reference images, one a step."""

    def __init__(self, vae: Vae, images_CYX: Sequence[torch.Tensor]) -> None:
        self.step = 0
        self._vae = vae
        self._images_CYX = images_CYX
        self._parts: list[Condition] = []

    def compute(self) -> None:
        self._parts.append(self._vae.encode_references(self._images_CYX[self.step][None]))

    @property
    def condition(self) -> Condition:
        return Condition(
            torch.cat([part.mean_KCHW for part in self._parts]), torch.cat([part.logvar_KCHW for part in self._parts])
        )

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

    async def store(self) -> None:
        self._chunk = None

    async def finish(self) -> None:
        """Rank 0 has work left."""

    async def close(self) -> None:
        """Holds nothing but memory."""

    def segments(self) -> tuple[Written, ...]:
        return ()


class _DecodeAndWrite(_Decode):
    """The same on rank 0, whose pixels go straight into the encoder."""

    def __init__(self, chunks: Iterator[Any], writer: SegmentWriter, stored: _Stored) -> None:
        super().__init__(chunks)
        self._writer = writer
        self._stored = stored

    async def store(self) -> None:
        await self._writer.write(self._chunk)

    async def finish(self) -> None:
        await self._writer.finish()

    async def close(self) -> None:
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
