"""A whole job without Ray: the Api in front, real stages behind, and a hand that dispatches."""

from __future__ import annotations

import io
import logging
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.config import parse
from cluster.pools import STAGES
from cluster.records import StageCall, StageRef
from cluster.registry import MODELS
from components.tiny import WRITERS
from deployments.call import Call, Stage
from deployments.leases import Lease
from deployments.scratch import Scratch
from deployments.stage import load_stages
from deployments.telemetry import Laps, StageMetrics
from tests.unit.cluster.makers import worker
from tests.unit.cluster.store.play import Play
from tests.unit.deployments.api.conftest import Edge, open_edge

LOG = logging.getLogger("test.line")
Before = Callable[[StageCall], Awaitable[None]]


@dataclass
class Line:
    """One system in this process."""

    edge: Edge
    play: Play
    stages: dict[str, Stage]
    scratch: Scratch
    metrics: StageMetrics = field(default_factory=lambda: StageMetrics(STAGES))
    done: list[StageRef] = field(default_factory=list)

    async def submit(self, **fields: Any) -> dict[str, Any]:
        response = await self.edge.client.post("/v1/videos", json={"seed": 7, **fields})
        assert response.status_code == 200, response.text
        job: dict[str, Any] = response.json()
        return job

    async def advance(self) -> bool:
        """Runs every stage that is ready, one after the other; False when none was."""
        ready = [item.ref for item in (await self.play.store.state(worker_ttl_s=600)).ready]
        for ref in sorted(ready):
            await self.run(ref)
        return bool(ready)

    async def run(self, ref: StageRef) -> None:
        (call,) = await self.play.store.dispatch(self.play.leadership, [ref])
        work = await self.play.store.claim(call, "w1", 600.0)
        assert work is not None
        with self.scratch.folder(str(ref).replace("/", "-")) as folder:
            around = Call(
                Lease(work), self.play.store, self.edge.artifacts, self.metrics, folder, hints={}, laps=Laps()
            )
            result = await self.stages[ref.stage].run(around)
        await self.play.store.complete(call, result.handles, result.artifact, extension=result.extension)
        self.done.append(ref)

    async def finish(self, video_id: str) -> dict[str, Any]:
        while await self.advance():
            pass
        job = (await self.edge.client.get(f"/v1/videos/{video_id}")).json()
        assert job["status"] == "completed", job
        return dict(job)

    async def content(self, video_id: str, **params: Any) -> bytes:
        response = await self.edge.client.get(f"/v1/videos/{video_id}/content", params=params)
        assert response.status_code == 200, response.text
        return response.content


def checkpoints(folder: Path, names: tuple[str, ...]) -> str:
    """Writes what the models need; the `models` of a configuration."""
    rows = []
    for name in names:
        root = folder / WRITERS[MODELS[name].task].__name__
        WRITERS[MODELS[name].task](root)
        rows.append(f"{{name: {name}, checkpoint: {root}, tiny: true}}")
    return f"[{', '.join(rows)}]"


async def _unasked(models: Sequence[str]) -> None:
    """Nobody here asks which models are loaded."""


@asynccontextmanager
async def open_line(
    folder: Path, models: str, more: str = "", stages: str = "", *, ranks: int = 1
) -> AsyncIterator[Line]:
    """`more` is added to the configuration, `stages` to those that every model has. Several `ranks` need a Ray of this
    process.
    """
    hosted = f"[text, audio, vision, condition, source, denoise, decode{stages and ', ' + stages}]"
    config = parse(
        f"profile: test\ntopology: monolith\nstate_dir: {folder / 'state'}\nmodels: {models}\n"
        f"pools: [{{name: All, stages: {hosted}, ranks: {ranks}, threads: 1}}]\ndenoise: {{loaded: 9}}\n" + more,
        "test",
    )
    async with open_edge(folder, config=config) as edge:
        leadership = await edge.store.lead("s1", 600.0)
        assert leadership is not None
        await edge.store.register(worker("w1", **dict.fromkeys(config.pools[0].stages, 1)))
        loaded = await load_stages(config, config.pools[0], edge.artifacts, LOG, _unasked)
        try:
            yield Line(edge, Play(edge.store, leadership), loaded, Scratch(folder / "scratch"))
        finally:
            for stage in loaded.values():
                await stage.close()


def film(
    frames: NDArray[np.uint8],
    fps: int = 24,
    *,
    container: str = "mp4",
    codec: str = "libx264",
    sound: bytes | None = None,
) -> bytes:
    """A file of these frames, as a client would have it; `sound` is a WAV that lies under them."""
    data = io.BytesIO()
    with av.open(data, "w", format=container) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        voice = None if sound is None else av.open(io.BytesIO(sound), "r", format="wav")
        if voice is not None:
            heard = out.add_stream("aac", rate=voice.streams.audio[0].rate, layout="mono")
            for part in voice.decode(audio=0):
                out.mux(heard.encode(part))
            out.mux(heard.encode(None))
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return data.getvalue()


def moving(count: int, height: int = 64, width: int = 112) -> NDArray[np.uint8]:
    """A ball that crosses a gradient."""
    rows, columns = np.mgrid[0:height, 0:width]
    frames = np.stack([np.stack([columns * 2 % 256, rows * 3 % 256, (rows + columns) % 256], -1)] * count)
    for index, frame in enumerate(frames):
        frame[(rows - height / 2) ** 2 + (columns - 10 - index) ** 2 < (height / 5) ** 2] = (220, 40, 40)
    return frames.astype(np.uint8)


def pictures(data: bytes) -> NDArray[np.uint8]:
    with av.open(io.BytesIO(data)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def speech(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    """A voice-like sound as WAV: harmonics of a wavering pitch, in syllables."""
    moments = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(140 + 20 * np.sin(2 * np.pi * 1.7 * moments)) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    wave_S = 0.2 * tone * (0.2 + np.clip(np.sin(2 * np.pi * 3.5 * moments), 0, 1))
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat((wave_S * 32767).astype("<i2")[:, None], channels, axis=1).tobytes())
    return data.getvalue()


def portrait(height: int = 64, width: int = 112) -> bytes:
    """A picture as PNG."""
    data = io.BytesIO()
    Image.fromarray(moving(1, height, width)[0]).save(data, "PNG")
    return data.getvalue()


def sound_of(data: bytes) -> tuple[NDArray[np.float32], int, str]:
    """What is heard: the first channel's samples, their rate, the codec."""
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.audio[0]
        codec = stream.codec_context
        resampler = av.AudioResampler(format="fltp", layout=codec.layout, rate=codec.sample_rate)
        parts = [part.to_ndarray()[0] for frame in file.decode(stream) for part in resampler.resample(frame)]
        return np.concatenate(parts), codec.sample_rate, codec.name
