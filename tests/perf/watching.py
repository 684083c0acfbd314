"""What metrics and spans cost beside the work that they tell of, in CPU time, which holds still where others work too.

Not a test: nothing here is asserted. `python -m tests.perf.watching [--blocks 12] [--jobs 4]`

Two measurements in one run:

- *One job's part*: what all processes together count and send for one job, done on one thread by the product's own
  classes, beside what the job costs on a laptop system. Threads that export are part of it, Ray's agent is not: it
  keeps a node's series whether jobs run or not.
- *Spans on a system*: two laptop systems, one of which sends spans to a collector, work in turns. From the CPU time of
  the processes of the one that works, that of the other, which idles meanwhile, is taken off.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import platform
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import ray

from cluster.config import Tracing
from cluster.records import JobState, StageCall, StageRef
from cluster.store.attempts import Attempt, Outcome
from cluster.store.observer import Ended, Kind
from cluster.trace import Trace
from components.tiny import write_r2v
from deployments.telemetry import GroupMetrics, Laps, SchedulerMetrics, StageMetrics, StoreMetrics
from deployments.tracing import TracedStore, Tracer, now_ns
from tests.integration.conftest import laptop
from tests.integration.system import System, until
from tests.integration.watching import collecting

STAGES = ("text", "condition", "denoise", "decode")
STEPS = 8
MODEL = "skyreels-v3-r2v"
# Transactions of one job on the laptop profile: its creation, dispatches, claims, ends, the Scheduler's readings.
TRANSACTIONS: dict[Kind, int] = {"write": 8, "light_write": 10, "read": 25}
PARTS = 40  # blocks of one job's part
PER_PART = 25  # jobs in each


class Processes:
    """All that counts and sends for a job."""

    def __init__(self, endpoint: str) -> None:
        self.tracer = Tracer(Tracing(endpoint=endpoint), "Bench")
        self._store = TracedStore(self.tracer, StoreMetrics([MODEL], STAGES))
        self._stage = StageMetrics(STAGES)
        self._scheduler = SchedulerMetrics(STAGES)
        self._group = GroupMetrics("Denoiser", 2)

    def job(self, job_id: str) -> None:
        """What a job of one result makes of metrics and spans."""
        trace, began_ns, now = Trace.new(sampled=True), now_ns(), datetime.now(UTC)
        laps = Laps()
        for part in ("claim", "get", "put", "complete"):
            laps.add(part, 0.001)
        for kind, count in TRANSACTIONS.items():
            for _ in range(count):
                self._store.asked(kind, 0.001, answered=True)
        for stage in STAGES:
            call = StageCall(StageRef(job_id, stage), 1, trace)
            self._scheduler.dispatched.inc(tags={"stage": stage})
            self._scheduler.queue_seconds.observe(0.01, tags={"stage": stage})
            self._scheduler.boundary.observe(laps)
            self._stage.stage_seconds.observe(0.1, tags={"stage": stage, "model": MODEL})
            self._stage.boundary.observe(laps)
            self._store.committed([Attempt(stage, 0, 0, 1, 1, "w", 1, 0.1, 0.0, 0.1, Outcome.DONE, None)])
            for what in ("queue", "call", "", "rank-0", "rank-1"):
                named = {**call.ref.named, "attempt": 1, **laps.told()}
                self.tracer.span(trace, f"{call.span}/{what}", stage, began_ns, parent=job_id, attributes=named)
        for _ in range(STEPS):
            self._group.worked(0.1)
            self._group.stepped(MODEL, "64P", 0.1)
        ended = Ended(job_id, "default", MODEL, JobState.DONE, None, now, now + timedelta(seconds=1), trace)
        self._store.committed([ended])


def parts(endpoint: str) -> list[float]:
    """CPU seconds of one job's part, by block."""
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    processes, found = Processes(endpoint), []
    for block in range(PARTS + 1):
        began_s = time.process_time()
        for number in range(PER_PART):
            processes.job(f"{block}-{number}")
        time.sleep(0.3)  # for the threads that export
        found.append((time.process_time() - began_s) / PER_PART)
    processes.tracer.close()
    ray.shutdown()
    return found[1:]


def cpu_s(system: System) -> float:
    """CPU time that the system's processes have had."""
    spent = 0.0
    for process in system.members():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent += times.user + times.system
    return spent


def work(system: System, idle: System, jobs: int) -> float:
    """CPU seconds that one of these jobs adds to an idle system."""
    before = cpu_s(system) - cpu_s(idle)
    for job in [system.submit(seed=str(number)) for number in range(jobs)]:
        until("it is done", lambda job=job: (system.get(job["id"]) or {}).get("status") == "completed", period_s=0.5)
    return (cpu_s(system) - cpu_s(idle) - before) / jobs


def compare(folder: Path, endpoint: str, blocks: int, jobs: int) -> tuple[list[float], list[float]]:
    """CPU seconds of a job by block, on a system without spans and on one with them."""
    write_r2v(folder / "tiny-r2v")
    with ExitStack() as stack:
        systems = [
            stack.enter_context(System(folder / name, overrides={**laptop(), **more}))
            for name, more in (("without", {}), ("with", {"tracing": {"endpoint": endpoint}}))
        ]
        spent: tuple[list[float], list[float]] = ([], [])
        dice = random.Random(1)
        for block in range(blocks + 1):
            for one in dice.sample((0, 1), 2):
                seconds = work(systems[one], systems[1 - one], jobs)
                if block:  # the first warms up
                    spent[one].append(seconds)
    return spent


def collect(pipe: Connection) -> None:
    """A collector that tells its address, and how many spans it got when it is asked."""
    with collecting() as collector:
        pipe.send(collector.endpoint)
        while pipe.recv():
            pipe.send(len(collector.spans))


def spread(figure: Callable[[np.ndarray], float], blocks: int) -> tuple[float, float, float]:
    """A figure of drawn blocks: its value for all, and where 95 % of the draws lie."""
    draws = np.random.default_rng(1).integers(0, blocks, (4000, blocks))
    low, high = np.percentile([figure(draw) for draw in draws], [2.5, 97.5])
    return figure(np.arange(blocks)), float(low), float(high)


def told(values: Sequence[float], scale: float, digits: int = 2) -> str:
    value, low, high = (f"{one * scale:.{digits}f}" for one in values)
    return f"{value} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=4, help="of each block")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    collector = context.Process(target=collect, args=(theirs,))
    collector.start()
    endpoint = pipe.recv()
    part = np.array(parts(endpoint))
    pipe.send(True)
    before = pipe.recv()
    with tempfile.TemporaryDirectory() as name:
        without, watched = map(np.array, compare(Path(name), endpoint, asked.blocks, asked.jobs))
    pipe.send(True)
    spans = (pipe.recv() - before) / ((asked.blocks + 1) * asked.jobs)
    pipe.send(False)
    collector.join()
    cost = spread(lambda draw: float(np.median(part[draw])), PARTS)
    job = spread(lambda draw: float(np.median(without[draw])), asked.blocks)
    ratio = cost[0] / job[0], cost[1] / job[2], cost[2] / job[1]
    tracing = spread(lambda draw: float(watched[draw].sum() / without[draw].sum()), asked.blocks)
    print(f"{platform.node()} {datetime.now(UTC):%Y-%m-%d} · {asked.blocks} blocks of {asked.jobs} jobs")  # noqa: T201
    print(f"metrics and spans of one job: {told(cost, 1e3)} ms of CPU")  # noqa: T201
    print(f"one job: {told(job, 1e3, 0)} ms of CPU, {spans:.1f} spans")  # noqa: T201
    print(f"ratio: {told(ratio, 100)} %")  # noqa: T201
    print(f"a system with spans, beside one without: {told(tracing, 1, 3)}")  # noqa: T201


if __name__ == "__main__":
    main()
