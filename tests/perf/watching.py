"""What metrics and spans cost: the same small jobs with and without them, in turns, in one process.

Not a test: nothing here is asserted. `python -m tests.perf.watching [--jobs 60]`

A job is the denoising of the tiny checkpoint by a real controller and rank, with everything that all processes together
count and send for one job done beside it on the same thread, although they are several processes. So the ratio is that
of the worst case: the smallest model, and no other core to hide on. Spans go to a collector in a process of its own.
Both clocks are told: wall time, and CPU time of all threads, which holds still on a machine that others use too.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import platform
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import numpy as np
import ray

from cluster.config import Tracing
from cluster.records import JobState, StageCall, StageRef
from cluster.store.attempts import Attempt, Outcome
from cluster.store.observer import Ended, Kind
from cluster.trace import Trace
from components.tiny import write_r2v
from deployments.group.controller import Controller
from deployments.group.local import LocalRanks
from deployments.telemetry import GroupMetrics, Laps, SchedulerMetrics, StageMetrics, StoreMetrics
from deployments.tracing import TracedStore, Tracer, now_ns
from tests.integration.watching import collecting
from tests.unit.deployments.group.jobs import LOG, Metrics, Works, config

STAGES = ("text", "condition", "denoise", "decode")
MODEL = "skyreels-v3-r2v"
# Transactions of one job on the laptop profile: its creation, dispatches, claims, ends, the Scheduler's readings.
TRANSACTIONS: dict[Kind, int] = {"write": 8, "light_write": 10, "read": 25}
WARM_UP = 5
Clocks = tuple[float, float]


class Processes:
    """All that counts and sends for a job."""

    def __init__(self, endpoint: str) -> None:
        self.tracer = Tracer(Tracing(endpoint=endpoint), "Bench")
        self._store = TracedStore(self.tracer, StoreMetrics())
        self._stage = StageMetrics()
        self._scheduler = SchedulerMetrics()

    def job(self, job_id: str) -> None:
        """What a job of one result makes of metrics and spans beside its steps."""
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
        ended = Ended(job_id, "default", MODEL, JobState.DONE, None, now, now + timedelta(seconds=1), trace)
        self._store.committed([ended])


def collect(pipe: Connection) -> None:
    """A collector that tells its address, and how many spans it got when it is asked to end."""
    with collecting() as collector:
        pipe.send(collector.endpoint)
        pipe.recv()
        pipe.send(len(collector.spans))


async def measure(folder: Path, jobs: int, endpoint: str) -> tuple[list[Clocks], list[Clocks]]:
    """Wall and CPU seconds of each job, without and with."""
    write_r2v(folder / "tiny")
    works = Works(config(folder / "tiny", folder))
    controllers = []
    for metrics in (cast(GroupMetrics, Metrics()), GroupMetrics("Denoiser", 1)):
        ranks = LocalRanks(works.config, works.pool)
        controllers.append(Controller(ranks, works.config, residents=2, metrics=metrics, log=LOG, told=works.told))
        await controllers[-1].start()
    processes = Processes(endpoint)
    spent: tuple[list[Clocks], list[Clocks]] = ([], [])
    dice = random.Random(1)
    for number in range(jobs + WARM_UP):
        for watched in dice.sample((0, 1), 2):
            call = await works.call(f"job-{number}-{watched}")
            began = time.perf_counter(), time.process_time()
            await controllers[watched].run(call)
            if watched:
                processes.job(f"job-{number}")
            if number >= WARM_UP:
                spent[watched].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    for controller in controllers:
        await controller.close()
    processes.tracer.close()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60)
    jobs = parser.parse_args().jobs
    logging.disable(logging.WARNING)
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    collector = context.Process(target=collect, args=(theirs,))
    collector.start()
    endpoint = pipe.recv()
    with tempfile.TemporaryDirectory() as name:
        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
        without, watched = asyncio.run(measure(Path(name), jobs, endpoint))
        ray.shutdown()
    pipe.send("end")
    print(f"{platform.node()} {datetime.now(UTC):%Y-%m-%d} · {jobs} jobs · {pipe.recv()} spans")  # noqa: T201
    collector.join()
    for clock, name in enumerate(("wall", "CPU")):
        ratios = np.array([one[clock] for one in watched]) / np.array([one[clock] for one in without])
        draws = np.median(np.random.default_rng(1).choice(ratios, (2000, len(ratios))), axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        a, b = (statistics.median(one[clock] for one in spent) * 1e3 for spent in (without, watched))
        ratio = f"{np.median(ratios):.4f} [{low:.4f}, {high:.4f}]"
        print(f"{name}: {a:.1f} ms without, {b:.1f} ms with, ratio {ratio}")  # noqa: T201


if __name__ == "__main__":
    main()
