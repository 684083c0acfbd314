"""Measures the shipped CPU profiles on this machine and writes BENCHMARKS.md, down to its section `OTHERS`.

Not a test: nothing here is asserted.

`python -m tests.perf.bench [--install]`; with `--install` a fresh clone is installed too (minutes, needs the registry).
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from cluster import config as configuration
from components.tiny import write_r2v
from tests.integration.system import System, until

ROOT = Path(__file__).parents[2]
OTHERS = "## Other measurements"  # written by hand from other targets
SHAPES = (
    ("64P · 1 s", {"resolution": "64P", "seconds": "1"}),
    ("64P · 5 s", {"resolution": "64P", "seconds": "5"}),
    ("480P · 1 s", {"resolution": "480P", "seconds": "1"}),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    runs: int
    starts: int
    kills: int
    shapes: Sequence[tuple[str, dict[str, str]]]


FULL = Effort(runs=5, starts=3, kills=3, shapes=SHAPES)
QUICK = Effort(runs=3, starts=1, kills=1, shapes=SHAPES[:2])
STAGES = ("text", "condition", "denoise", "decode")


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def spread(values: Sequence[float], unit: str = "s", digits: int = 3) -> str:
    """Median with minimum and maximum."""
    return f"{statistics.median(values):.{digits}f} {unit} ({min(values):.{digits}f}–{max(values):.{digits}f})"


@contextmanager
def sampled_pss(system: System, samples: list[int]) -> Iterator[None]:
    """Adds the proportional set size of all processes, in bytes, again and again. Reading it takes the processors'
    time, so nothing is timed meanwhile.
    """
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.2):
            total = 0
            for member in system.members():
                try:
                    total += member.memory_full_info().pss
                except psutil.Error:
                    continue
            samples.append(total)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def run_jobs(system: System, fields: dict[str, str], runs: int, samples: list[int]) -> list[dict[str, Any]]:
    """Jobs one after the other, each with its end-to-end time; a warm-up job before shows the memory."""
    with sampled_pss(system, samples):
        run_job(system, fields, 0)
    return [run_job(system, fields, index) for index in range(1, runs + 1)]


def run_job(system: System, fields: dict[str, str], index: int) -> dict[str, Any]:
    began = time.perf_counter()
    job = system.submit(**fields, seed=str(index))
    job = system.reach(job["id"], lambda now: now["status"] == "completed", "completed", 900)
    return job | {"e2e_s": time.perf_counter() - began}


def longest_path(job: dict[str, Any]) -> float:
    """Working time of the stages one after the other; text and condition run side by side."""
    worked = {stage["stage"]: stage["worked_s"] for stage in job["stages"]}
    return float(max(worked["text"], worked["condition"]) + worked["denoise"] + worked["decode"])


def stage_rows(label: str, jobs: Sequence[dict[str, Any]]) -> str:
    cells = []
    for name in STAGES:
        worked = [stage["worked_s"] for job in jobs for stage in job["stages"] if stage["stage"] == name]
        cells.append(spread(worked))
    overhead = [job["e2e_s"] - longest_path(job) for job in jobs]
    end_to_end = [job["e2e_s"] for job in jobs]
    return f"| {label} | {' | '.join(cells)} | {spread(end_to_end)} | {spread(overhead)} |"


def install_row() -> str:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        seconds = timed(lambda: subprocess.run(["make", "install"], cwd=clone, check=True, capture_output=True))
        size = sum(path.lstat().st_size for path in (clone / ".venv").rglob("*") if path.is_file())
    return f"| `make install`, fresh clone, one run | {seconds:.0f} s, {size / 1e9:.1f} GB |"


def machine() -> str:
    with Path("/proc/cpuinfo").open() as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {psutil.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, no GPU"


def commit() -> str:
    git = shutil.which("git") or "git"
    done = subprocess.run([git, "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def cpu_seconds(system: System) -> float:
    total = 0.0
    for member in system.members():
        try:
            times = member.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def idle_share(system: System, seconds: float = 20.0) -> float:
    """Share of one core that all processes use while nothing is asked of them."""
    before = cpu_seconds(system)
    time.sleep(seconds)
    return (cpu_seconds(system) - before) / seconds


def recovery_row(system: System, victim: str, kills: int) -> str:
    """From the kill of a process to the end of the next 64P job; clients try again while the edge is down."""
    times = []
    for _ in range(kills):
        process = system.ranks()[-1] if victim == "rank" else system.replica(victim)
        began = time.perf_counter()
        process.kill()
        job = until("a request is accepted", lambda: system.try_submit(seed="1"), 120, 0.05)
        system.finish(job["id"])
        times.append(time.perf_counter() - began)
        until("the system is whole", system.whole, 120, 0.2)
    return f"| {victim} | {spread(times, digits=1)} |"


def measure(effort: Effort, name: str, overrides: dict[str, Any], folder: Path) -> str:
    """Every table of one profile."""
    rows = []
    starts = []
    for index in range(effort.starts):
        system = System(folder / f"{name}-{index}", overrides=overrides)
        starts.append(timed(system.start))
        if index < effort.starts - 1:
            system.close()
    rows.append(
        f"| cold start: `skyreels serve` to every stage ready, runs: {effort.starts} | {spread(starts, digits=1)} |"
    )
    until("the system is whole", system.whole, 120, 0.2)
    rows.append(f"| idle, all processes | {idle_share(system):.0%} of one core |")
    samples: list[int] = []
    with sampled_pss(system, samples):
        time.sleep(2)
    idle = samples[-1]
    tables = [stage_rows(label, run_jobs(system, fields, effort.runs, samples)) for label, fields in effort.shapes]
    rows.append(f"| memory of all processes (PSS), idle → peak | {idle / 2**30:.2f} → {max(samples) / 2**30:.2f} GiB |")
    victims = [pool["name"] for pool in overrides["pools"]]
    victims += ["rank"] if any(pool.get("ranks", 1) > 1 for pool in overrides["pools"]) else []
    recoveries = [recovery_row(system, victim, effort.kills) for victim in (*victims, "Scheduler", "Api")]
    system.close()
    head = "| shape | " + " | ".join(STAGES) + " | end to end | outside the stages |"
    return "\n".join(
        [
            f"## {name}",
            "",
            "| what | value |",
            "|---|---|",
            *rows,
            "",
            head,
            "|" + "---|" * (len(STAGES) + 3),
            *tables,
            "",
            f"SIGKILL of a process to the end of the next 64P · 1 s job, {effort.kills} kills each:",
            "",
            "| killed | seconds |",
            "|---|---|",
            *recoveries,
            "",
        ]
    )


PREFACE = """# Benchmarks

`make bench` measures again and writes this file. Tiny random weights on a CPU say something about the software path
(ratios, overhead, memory), nothing about the speed or quality of the released models. No GPU figure is here because no
GPU has produced one yet.

Machine: {machine}. Date: {date:%Y-%m-%d}. Commit: {commit}. One torch thread per process. Values are median
(minimum–maximum); shapes ran {runs} jobs one at a time after a warm-up job. "Outside the stages" is the end-to-end time
as a polling client sees it (50 ms poll) minus the stages' working time on the longest path: HTTP, media checks,
scheduling, hand-over and publishing.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--quick", action="store_true", help="64P only, one start and one kill of each kind")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    text = PREFACE.format(machine=machine(), date=datetime.now(UTC), commit=commit(), runs=effort.runs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [install_row()] if options.install else []
        rows.append(f"| write the tiny checkpoint | {timed(lambda: write_r2v(folder / 'tiny-r2v')):.2f} s |")
        text += "\n".join(["| what | value |", "|---|---|", *rows, "", ""])
        for profile in ("laptop", "monolith"):
            config = configuration.profile(profile)
            pools = [pool.model_dump(mode="json", exclude_unset=True) for pool in config.pools]
            text += measure(effort, profile, {"topology": config.topology, "pools": pools}, folder) + "\n"
    page = ROOT / "BENCHMARKS.md"
    _, mark, others = page.read_text().partition(f"\n{OTHERS}\n")
    page.write_text(text + (mark + others).lstrip())


if __name__ == "__main__":
    main()
