"""Many jobs in a row, and what stays behind. Not a test: nothing here is asserted.

`python -m tests.perf.soak [--jobs N]` prints, every N/12 jobs, the resident memory (MiB) of each process kind and the
bytes of hand-off values in Ray's object store; a system that leaks nothing prints flat columns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from pathlib import Path

import psutil

from components.tiny import write_r2v
from tests.integration.system import System

SAMPLES = 12
AT_ONCE = 4
KINDS = ("Scheduler", "Courier", "Api", "TextEncoder", "VaeRoom", "Denoiser")


def rss_mib(processes: list[psutil.Process]) -> str:
    return f"{sum(process.memory_info().rss for process in processes) / 2**20:.0f}"


def sample(system: System, done: int) -> str:
    cells = [rss_mib([system.replica(kind)]) for kind in KINDS]
    return f"| {done} | {' | '.join(cells)} | {rss_mib(system.ranks())} | {system.shared_nbytes()} |"


def soak(jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_r2v(Path(folder) / "tiny-r2v")
        system = System(Path(folder) / "system", topology="disaggregated")
        try:
            system.start()
            print(f"| jobs | {' | '.join(KINDS)} | ranks | object store |")  # noqa: T201 (what it is for)
            print("|" + "---|" * (len(KINDS) + 3))  # noqa: T201
            open_jobs: deque[str] = deque()
            for done in range(jobs):
                open_jobs.append(system.submit(seed=str(done))["id"])
                if len(open_jobs) == AT_ONCE:
                    system.finish(open_jobs.popleft())
                if (done + 1) % max(jobs // SAMPLES, 1) == 0:
                    print(sample(system, done + 1), flush=True)  # noqa: T201
            for job in open_jobs:
                system.finish(job)
            system.settle()
            print(sample(system, jobs), flush=True)  # noqa: T201
        finally:
            system.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    soak(parser.parse_args().jobs)


if __name__ == "__main__":
    main()
