"""Where the time between two stages goes, on this machine. Not a test: nothing here is asserted.

`python -m tests.perf.boundary [--jobs N]` prints tables: the hand-off of values of released sizes between two
processes; what ordering the steps of a group costs (`tests.perf.orders`); the boundaries of jobs in a running system,
from the rows of its store and the lines of its log; and the whole way of jobs in named parts (`tests.perf.journey`),
against what was computed.

A boundary lasts from the moment the last producer's result is being recorded until the next stage has its lease:

    SQL       complete (producer), plan and dispatch (Scheduler), claim (consumer)
    wake      the ack's way to the Scheduler, and its wait there
    call      the way to the next replica
    artifact  before: writing the value durably while sharing it (the denoiser: with the end of the computation)
    get       after: receiving the inputs (the denoiser: with building the run)
"""

from __future__ import annotations

import tests.ray_token  # noqa: F401 (before anything imports Ray)

# isort: split

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch

from components.tiny import write_r2v
from components.values import Latents, TextContext, Value
from deployments.artifacts import ArtifactStore
from deployments.transport import DurableTransport
from deployments.transport_ray import RayTransport
from tests.integration.system import System
from tests.perf.journey import PARTS as JOURNEY
from tests.perf.journey import Split, journeys, log_lines, moments
from tests.perf.orders import orders

RUNS = 20
ROOT = Path(__file__).parents[2]
PARTS = ("total", "SQL", "complete", "plan", "dispatch", "claim", "wake", "call", "artifact", "get")
LENGTHS = ("1", "5", "10")  # seconds of video
PRODUCERS = {"denoise": ("text", "condition"), "decode": ("denoise",)}
VALUES: dict[str, Value] = {
    "latents 64P · 5 s, fp32": Latents(torch.zeros(1, 16, 31, 8, 14)),
    "latents 480P · 5 s, bf16": Latents(torch.zeros(1, 16, 31, 60, 104, dtype=torch.bfloat16)),
    "latents 480P · 5 s, fp32": Latents(torch.zeros(1, 16, 31, 60, 104)),
    "text context 512×4096, bf16": TextContext(
        torch.zeros(1, 512, 4096, dtype=torch.bfloat16), torch.zeros(1, 0, 4096, dtype=torch.bfloat16)
    ),
}
Splits = dict[str, dict[str, list[float]]]


def spread(values: Sequence[float]) -> str:
    """Median with the middle half."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# -- values ----------------------------------------------------------------------------------------------------------
class Reader:
    """Another process, which receives what it is told to and says how many milliseconds that took."""

    def __init__(self, root: str) -> None:
        self._transport = RayTransport(ArtifactStore(root))

    async def get(self, handle: Any, hints: dict[str, Any]) -> float:
        began = time.perf_counter()
        await self._transport.get(handle, hints.get(handle.key))
        return (time.perf_counter() - began) * 1e3


async def timed(action: Callable[[], Awaitable[Any]]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = await action()
    return (time.perf_counter() - began) * 1e3, result


async def hand_over(root: str) -> Iterator[str]:
    """One row per value: median milliseconds (middle half)."""
    store = ArtifactStore(root)
    both, durable = RayTransport(store), DurableTransport(store, cache_nbytes=0)
    reader = ray.remote(num_cpus=0.1)(Reader).remote(root)
    rows = [
        row(["value", "MB", "put", "durable write alone", "share alone", "get by hint", "get from the file"]),
        "|" + "---|" * 7,
    ]
    for name, value in VALUES.items():
        spent: dict[str, list[float]] = defaultdict(list)
        arrays = {key: tensor.view(torch.uint8).numpy() for key, tensor in value.tensors().items()}
        for run in range(RUNS + 3):
            key = f"jobs/x/work/{run}"
            put_ms, handle = await timed(lambda key=key, value=value: both.put(key, value))
            hints = dict(both.lend([handle]))
            write_ms, _ = await timed(lambda key=key, value=value: durable.put(f"{key}-alone", value))
            share_ms, ref = await timed(lambda arrays=arrays: asyncio.to_thread(ray.put, arrays))
            by_hint_ms = await reader.get.remote(handle, hints)
            from_file_ms = await reader.get.remote(handle, {})
            both.release(key)
            del ref, hints
            if run >= 3:
                for part, ms in zip(
                    ("put", "write", "share", "hint", "file"),
                    (put_ms, write_ms, share_ms, by_hint_ms, from_file_ms),
                    strict=True,
                ):
                    spent[part].append(ms)
        nbytes = sum(tensor.nbytes for tensor in value.tensors().values())
        rows.append(row([name, f"{nbytes / 1e6:.1f}", *(spread(values) for values in spent.values())]))
    return iter(rows)


@contextmanager
def own_ray() -> Iterator[None]:
    ray.init(
        num_cpus=2,
        object_store_memory=512 * 2**20,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    try:
        yield
    finally:
        ray.shutdown()


# -- boundaries ------------------------------------------------------------------------------------------------------
def boundaries(system: System, jobs: Sequence[str]) -> Splits:
    """Milliseconds of each part, by consuming stage."""
    worked = {(line["job"], line["stage"]): line for line in log_lines(system, "stage ended")}
    planned = {call: line for line in log_lines(system, "dispatched") for call in line["calls"]}
    splits: Splits = {stage: defaultdict(list) for stage in PRODUCERS}
    for job in jobs:
        at = moments(system, job)
        for stage, producers in PRODUCERS.items():
            last = max(producers, key=lambda producer: at[producer]["done_at"])
            made, plan, used = worked[job, last], planned[f"{job}/{stage}/0"], worked[job, stage]
            parts = {
                "complete": made["complete_s"],
                "plan": plan["plan_s"],
                "dispatch": plan["dispatch_s"],
                "claim": used["claim_s"],
            }
            waited = (at[stage]["dispatched_at"] - at[stage]["ready_at"]).total_seconds()
            called = (at[stage]["claimed_at"] - at[stage]["dispatched_at"]).total_seconds()
            parts |= {
                "SQL": sum(parts.values()),
                "total": waited + called + parts["claim"],
                "wake": waited - parts["complete"] - parts["plan"],
                "call": called - parts["dispatch"],
                "artifact": made.get("put_s", made.get("finish_s", 0.0)),
                "get": used.get("get_s", used.get("prepare_s", 0.0)),
            }
            for part, seconds in parts.items():
                splits[stage][part].append(seconds * 1e3)
    return splits


def parts(splits: Sequence[Split]) -> Iterator[str]:
    """One row per part: its milliseconds, and its share of the total."""
    for part in (*JOURNEY, "total"):
        share = [100 * split[part] / split["total"] for split in splits]
        yield f"{spread([split[part] * 1e3 for split in splits])} · {statistics.median(share):.1f} %"


def overheads(splits: Sequence[Split]) -> list[str]:
    """Cells: in the system, computed (the encoder included), the rest, and the rest's share."""
    totals = [split["total"] * 1e3 for split in splits]
    computed = [(split["compute"] + split["segments"]) * 1e3 for split in splits]
    rest = [total - work for total, work in zip(totals, computed, strict=True)]
    share = [100 * part / total for part, total in zip(rest, totals, strict=True)]
    return [spread(totals), spread(computed), spread(rest), spread(share)]


def measure(jobs: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, own_ray():
        rows = ["Hand-off between two processes of one node, ms: median (middle half).", ""]
        rows += asyncio.run(hand_over(folder))
    with tempfile.TemporaryDirectory() as folder:
        write_r2v(Path(folder) / "tiny-r2v")
        system = System(Path(folder) / "system", topology="disaggregated")
        try:
            system.start()
            done = [system.finish(system.submit(seed=str(seed))["id"])["id"] for seed in range(jobs + 3)]
            splits = boundaries(system, done[3:])
            asked = {seconds: {"seconds": seconds, "seed": "1"} for seconds in LENGTHS}
            ran = {
                seconds: [system.finish(system.submit(**ask)["id"])["id"] for _ in range(RUNS // 2)]
                for seconds, ask in asked.items()
            }
            travelled = {seconds: journeys(system, ids) for seconds, ids in ran.items()}
        finally:
            system.close()
    with tempfile.TemporaryDirectory() as folder, own_ray():
        write_r2v(Path(folder) / "tiny-r2v")
        ordered = asyncio.run(orders(Path(folder)))
    rows += [
        "",
        "Steps of two ranks, ms: an empty command, the ranks' own time, by the controller; last over middle.",
        "",
    ]
    rows += [row(["64P", "empty command", "step of the ranks", "step by the controller", "ratio"]), "|" + "---|" * 5]
    rows += map(row, ordered)
    rows += ["", f"Boundaries of {jobs} jobs, one at a time, ms: median (middle half).", ""]
    rows += [row(["to", *PARTS]), "|" + "---|" * (len(PARTS) + 1)]
    rows += [row([stage, *(spread(split[part]) for part in PARTS)]) for stage, split in splits.items()]
    rows += ["", f"The way of {RUNS // 2} jobs of each length, one at a time, ms: median (middle half) · share.", ""]
    rows += [row(["part", *(f"64P · {seconds} s" for seconds in LENGTHS)]), "|" + "---|" * (len(LENGTHS) + 1)]
    rows += [row(cells) for cells in zip((*JOURNEY, "total"), *map(parts, travelled.values()), strict=True)]
    rows += ["", row(["64P", "in the system, ms", "computed, ms", "rest, ms", "rest, %"]), "|" + "---|" * 5]
    rows += [row([f"{seconds} s", *overheads(splits)]) for seconds, splits in travelled.items()]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    for line in measure(parser.parse_args().jobs):
        print(line)  # noqa: T201 (what it is for)


if __name__ == "__main__":
    main()
