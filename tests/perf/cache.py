"""An encoding from the cache beside a computed one. Not a test: nothing here is asserted.

`python -m tests.perf.cache`; random weights on the CPU, one thread. The text encoder has the released one's layers at a
quarter of its width and a third of its depth; entries of the released sizes are only moved.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import torch
from transformers import UMT5Config, UMT5EncoderModel

from cluster.config import Cache
from components.device import Placement
from components.text import TextEncoder, read_tokenizer
from components.tiny.tokenizer import write_tokenizer
from components.tiny.weights import fill
from components.values import KnownFrames, TextContext, Value
from deployments import blobs
from deployments.artifacts import ArtifactStore
from deployments.cache import EncodingCache, key_of
from deployments.telemetry import logger

RUNS = 5
SETTINGS = Cache()
Make = Callable[[], Awaitable[Value]]


def encoder(folder: Path) -> TextEncoder:
    vocabulary = write_tokenizer(folder / "tokenizer")
    config = UMT5Config(vocab_size=vocabulary, d_model=1024, d_kv=64, d_ff=2560, num_layers=8, num_heads=16)
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    fill(model, 0)
    return TextEncoder(model.eval(), read_tokenizer(folder / "tokenizer"), Placement.of("cpu"))


async def times(artifacts: ArtifactStore, name: str, make: Make) -> tuple[list[float], list[float], list[float], int]:
    """Seconds of RUNS times made, from the store, and from memory; bytes of the value."""
    made, stored, kept, nbytes = [], [], [], 0
    for run in range(RUNS):
        key = key_of("text", name, None, {"run": run})
        first, other = (EncodingCache(artifacts, SETTINGS, logger()) for _ in range(2))
        for cache, seconds in ((first, made), (other, stored), (other, kept)):
            began = time.perf_counter()
            value, _ = await cache.recall(key, make)
            seconds.append(time.perf_counter() - began)
            nbytes = blobs.size(value)
            await cache.settle()
    return made, stored, kept, nbytes


def cell(seconds: list[float]) -> str:
    """Median with minimum and maximum, in ms."""
    low, middle, high = (x * 1e3 for x in (min(seconds), statistics.median(seconds), max(seconds)))
    return f"{middle:.3g} ms ({low:.3g}–{high:.3g})"


async def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = encoder(folder)

        async def encoded() -> Value:
            return await asyncio.to_thread(texts.encode, "a red ball rolls over a grey floor", None)

        async def released_text() -> Value:
            rows_BLD = torch.randn(1, 512, 4096).to(torch.bfloat16)
            return TextContext(rows_BLD, rows_BLD[:, :0].clone())

        async def released_frames() -> Value:
            return KnownFrames(torch.randn(1, 20, 21, 90, 160), torch.zeros(1, 16, 0, 90, 160))

        artifacts = ArtifactStore(str(folder / "artifacts"))
        await encoded()
        rows = [
            ("text, 8 layers of width 1024", encoded, True),
            ("text of the released size", released_text, False),
            ("first frames of an avatar, 720P", released_frames, False),
        ]
        lines = [
            "| entry | size | computed | from the store | from memory | computed ÷ store |",
            "|---|---|---|---|---|---|",
        ]
        for label, make, whole in rows:
            made, stored, kept, nbytes = await times(artifacts, label, make)
            ratio = f"{statistics.median(made) / statistics.median(stored):,.0f}" if whole else ""
            cells = [label, f"{nbytes / 2**20:.1f} MiB", cell(made) if whole else "", cell(stored), cell(kept), ratio]
            lines.append(f"| {' | '.join(cells)} |")
        print("\n".join(lines))  # noqa: T201 (what it is for)


if __name__ == "__main__":
    asyncio.run(main())
