"""What metrics and spans cost: the same small jobs with and without them, in turns, in one process.

Not a test: nothing here is asserted. `python -m tests.perf.watching [--jobs 60]`

A job is the denoising of the tiny checkpoint by a real controller and rank, with everything that all processes together
count and send for one job done beside it on the same thread, although they are several processes. So the ratio is that
of the worst case: the smallest model, and no other core to hide on. Spans go to a collector on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import platform
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
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


async def measure(folder: Path, jobs: int, endpoint: str) -> tuple[list[float], list[float]]:
    """Seconds of each job, without and with."""
    write_r2v(folder / "tiny")
    works = Works(config(folder / "tiny", folder))
    controllers = []
    for metrics in (cast(GroupMetrics, Metrics()), GroupMetrics("Denoiser", 1)):
        ranks = LocalRanks(works.config, works.pool)
        controllers.append(Controller(ranks, works.config, residents=2, metrics=metrics, log=LOG))
        await controllers[-1].start()
    processes = Processes(endpoint)
    spent: tuple[list[float], list[float]] = ([], [])
    dice = random.Random(1)
    for number in range(jobs + WARM_UP):
        for watched in dice.sample((0, 1), 2):
            call = await works.call(f"job-{number}-{watched}")
            began = time.perf_counter()
            await controllers[watched].run(call)
            if watched:
                processes.job(f"job-{number}")
            if number >= WARM_UP:
                spent[watched].append(time.perf_counter() - began)
    for controller in controllers:
        await controller.close()
    processes.tracer.close()
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60)
    jobs = parser.parse_args().jobs
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name, collecting() as collector:
        ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
        without, watched = asyncio.run(measure(Path(name), jobs, collector.endpoint))
        ray.shutdown()
        ratios = np.array(watched) / np.array(without)
        draws = np.median(np.random.default_rng(1).choice(ratios, (2000, len(ratios))), axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        print(  # noqa: T201 (the point of it)
            f"{platform.node()} {datetime.now(UTC):%Y-%m-%d} jobs {jobs} spans {len(collector.spans)}\n"
            f"without {statistics.median(without) * 1e3:.1f} ms, with {statistics.median(watched) * 1e3:.1f} ms, "
            f"ratio {np.median(ratios):.4f} [{low:.4f}, {high:.4f}]"
        )
        alone = Processes(collector.endpoint)
        began = time.perf_counter()
        for number in range(200):
            alone.job(str(number))
        print(f"counting and sending alone: {(time.perf_counter() - began) * 5:.3f} ms a job")  # noqa: T201


if __name__ == "__main__":
    main()
