"""How long a group needs to exchange one model for another: from files, and from host memory.

`python -m tests.perf.exchange [--rounds N]` prints a table. On a CPU "host memory" is where the weights are anyway, so
what comes back from there is not even copied; on a GPU it is one copy over PCIe.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.config import Config
from components.tiny import TinySizes, write_r2v
from components.tiny.extension import write_extension
from deployments.group.commands import Done, Load
from deployments.group.rank import Rank

FIRST, SECOND = "skyreels-v3-r2v", "skyreels-v3-shot"
LAYERS = (2, 40)
HOST_NBYTES = 8 * 2**30


def config(folder: Path, host_nbytes: int) -> Config:
    return Config.model_validate(
        {
            "profile": "bench",
            "topology": "monolith",
            "state_dir": str(folder / "state"),
            "models": [{"name": name, "checkpoint": str(folder / name), "tiny": True} for name in (FIRST, SECOND)],
            "pools": [{"name": "All", "stages": ["text", "condition", "source", "denoise", "decode"]}],
            "denoise": {"loaded": 1, "host_nbytes": host_nbytes},
        }
    )


def exchanges(settings: Config, rounds: int) -> list[float]:
    """Milliseconds of each exchange, of two models that take turns; both have been loaded before."""
    rank = Rank(settings, settings.pools[0], 0)
    orders = [Load(FIRST)]
    orders += [Load(SECOND, FIRST), Load(FIRST, SECOND)] * (rounds + 1)
    found = []
    for number, order in enumerate(orders, start=1):
        began = time.perf_counter()
        outcome = rank.execute(number, order)
        found.append((time.perf_counter() - began) * 1e3)
        if not isinstance(outcome, Done):
            raise RuntimeError(outcome.reason)
    rank.close()
    return found[3:]


def spread(values: Sequence[float]) -> str:
    """Median (middle half)."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def rows(rounds: int) -> list[str]:
    found = ["| layers | from files, ms | from host memory, ms | ratio of the medians |", "|---|---|---|---|"]
    for layers in LAYERS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_r2v(folder / FIRST, sizes=TinySizes(layers=layers))
            write_extension(folder / SECOND, sizes=TinySizes(layers=layers))
            files, memory = (exchanges(config(folder, nbytes), rounds) for nbytes in (0, HOST_NBYTES))
        ratio = statistics.median(files) / statistics.median(memory)
        found.append(f"| {layers} | {spread(files)} | {spread(memory)} | {ratio:,.0f} |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    for line in rows(parser.parse_args().rounds):
        print(line)  # noqa: T201 (what it is for)


if __name__ == "__main__":
    main()
