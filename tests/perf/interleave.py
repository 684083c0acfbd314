"""What it gains to work on several chains at once, on this machine. Not a test: nothing here is asserted.

`python -m tests.perf.interleave [--rounds N]` makes two talking avatars and an extension one after the other, and then
all three at once, in a running laptop system, and prints both times and their ratio. "Beside" is how much of the
decoding time of a chain's chunks the denoiser group spent on another chain's steps, by the rows of the store.
"""

from __future__ import annotations

import tests.ray_token  # noqa: F401 (before anything imports Ray)

# isort: split

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tests.integration.chains import NAMES, rows, spans, submit
from tests.integration.conftest import laptop
from tests.integration.system import System

ASKED = ("avatar", "avatar", "extension")
Interval = tuple[float, float]  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overrides = {**laptop(), "models": rows(folder), "denoise": {"loaded": len(NAMES)}}
        with System(folder / "system", overrides=overrides) as system:
            for warm in sorted(set(ASKED)):
                system.finish(submit(system, warm), 600)
            print("| | one at a time, s | at once, s | ratio | beside, one at a time | beside, at once |")  # noqa: T201
            print("|---|---|---|---|---|---|")  # noqa: T201
            told = []
            for number in range(rounds):
                alone, apart = one_at_a_time(system)
                together, beside = at_once(system)
                told.append((alone, together, alone / together, apart, beside))
                print(row(str(number + 1), told[-1]), flush=True)  # noqa: T201
            for label, choose in (("median", statistics.median), ("least", min), ("most", max)):
                print(row(label, [choose(column) for column in zip(*told, strict=True)]))  # noqa: T201


def row(label: str, cells: Sequence[float]) -> str:
    alone, together, ratio, apart, beside = cells
    return f"| {label} | {alone:.1f} | {together:.1f} | {ratio:.2f} | {apart:.0%} | {beside:.0%} |"


def one_at_a_time(system: System) -> tuple[float, float]:
    """(seconds, share of the decoding beside which another chain was denoised)."""
    began = time.perf_counter()
    ids = []
    for name in ASKED:
        ids.append(submit(system, name))
        system.finish(ids[-1], 600)
    return time.perf_counter() - began, beside(system, ids)


def at_once(system: System) -> tuple[float, float]:
    """The same for all at once."""
    began = time.perf_counter()
    ids = [submit(system, name) for name in ASKED]
    for video_id in ids:
        system.finish(video_id, 600)
    return time.perf_counter() - began, beside(system, ids)


def beside(system: System, ids: Sequence[str]) -> float:
    decoding = shared = 0.0
    for video_id in ids:
        others = merged([span for other in ids if other != video_id for span in moments(system, other, "denoise")])
        for begin, end in moments(system, video_id, "decode"):
            decoding += end - begin
            shared += sum(max(0.0, min(end, stop) - max(begin, start)) for start, stop in others)
    return shared / decoding


def moments(system: System, video_id: str, stage: str) -> list[Interval]:
    found = [
        tuple(datetime.fromisoformat(str(at)).timestamp() for at in span) for span in spans(system, video_id, stage)
    ]
    return [(begin, end) for begin, end in found]


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """The same time without overlaps."""
    joined: list[Interval] = []
    for begin, end in sorted(intervals):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


if __name__ == "__main__":
    main()
