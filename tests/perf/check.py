"""Ratios of this tree, each measured in one run, beside those in `baseline.json`. Not a test of the default run.

`python -m tests.perf.check [--seconds S] [--update]` exits with 1 when a ratio is worse than its baseline by more than
its tolerance. Ratios travel between machines, seconds do not; a busy machine still blurs them. `--update` writes this
run's ratios as the baseline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest.arrivals import Closed
from loadtest.folder import RunFolder
from loadtest.layouts import LAYOUTS, system
from loadtest.live import Live
from loadtest.manifest import manifest
from loadtest.measure import Measured
from loadtest.mixes import Scenario, load
from loadtest.records import Outcome
from loadtest.runner import Runner, Target
from loadtest.slo import Summary, counted, residual_s, summarise

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.25
LOWER, HIGHER = "lower", "higher"  # which of two is better
CONSOLE = Console()


def measured(
    folder: Path, layout: str, asked: Sequence[Scenario], rate_hz: float = 1.0, **limits: int | None
) -> list[Measured]:
    """One system, one measurement of each scenario."""
    found = []
    bound = {"queued": limits.get("queued"), "running": limits.get("running")}
    with system(folder / layout / "system", LAYOUTS[layout], asked[0].models, **bound) as own:
        for number, scenario in enumerate(asked):
            told = manifest(target=layout, scenario=scenario.model_dump(mode="json"))
            run = RunFolder.begin(folder / layout / str(number), told)
            target = Target(own.url, pages={"api": f"{own.url}/metrics"})

            async def rate(scenario: Scenario = scenario, run: RunFolder = run, target: Target = target) -> None:
                async with Runner(scenario, target, run, Live(CONSOLE, scenario)) as runner:
                    await runner.rate(rate_hz)

            asyncio.run(rate())
            found += run.all()
    return found


def ratios(seconds: float) -> dict[str, float]:
    """Every ratio, by its name."""
    base = load("laptop").model_copy(update={"seconds": seconds, "warmup_s": seconds / 5, "seeds": (1,)})
    alone = base.model_copy(update={"arrivals": Closed(kind="closed", users=1)})
    full = base.model_copy(update={"arrivals": Closed(kind="closed", users=4)})
    with tempfile.TemporaryDirectory(prefix="skyreels-check-") as held:
        folder = Path(held)
        apart, busy = measured(folder, "laptop", [alone, full])
        (together,) = measured(folder, "monolith", [alone])
        saturation_hz = summarise([busy], full).throughput_hz.value
        (beyond,) = measured(folder / "over", "laptop", [base], 2 * saturation_hz, queued=3, running=3)
    rows = [row for row in counted(apart, alone) if row.outcome is Outcome.COMPLETED]
    over = summarise([beyond], base)
    return {
        "residual / end to end, one job at a time": _sum(residual_s(row) for row in rows)
        / _sum(row.latency_s for row in rows),
        "end to end, laptop / monolith, one job at a time": _mean(apart, alone) / _mean(together, alone),
        "goodput at twice the saturation / saturation": over.goodput_hz.value / saturation_hz,
        "device-seconds per video-second, four jobs / one": _device(busy, full) / _device(apart, alone),
    }


BETTER: Mapping[str, str] = {
    "residual / end to end, one job at a time": LOWER,
    "end to end, laptop / monolith, one job at a time": LOWER,
    "goodput at twice the saturation / saturation": HIGHER,
    "device-seconds per video-second, four jobs / one": LOWER,
}


def worse(found: Mapping[str, float], baseline: Mapping[str, Any]) -> list[str]:
    """Ratios that are worse than their baseline allows, one sentence each; one that has no baseline is one, too."""
    sentences = []
    for name, value in found.items():
        kept = baseline["ratios"].get(name)
        if kept is None:
            sentences.append(f"{name} has no baseline; write one with --update.")
            continue
        bound = kept["value"] * (1 + kept["tolerance"] * (1 if BETTER[name] == LOWER else -1))
        if (value > bound) if BETTER[name] == LOWER else (value < bound):
            sentences.append(f"{name} is {value:.3f}; the baseline is {kept['value']:.3f}, at worst {bound:.3f}.")
    return sentences


def _mean(point: Measured, scenario: Scenario) -> float:
    rows = [row for row in counted(point, scenario) if row.outcome is Outcome.COMPLETED]
    return _sum(row.latency_s for row in rows) / len(rows)


def _device(point: Measured, scenario: Scenario) -> float:
    told: Summary = summarise([point], scenario)
    if told.device_per_video is None:
        raise RuntimeError("the system did not tell its device-seconds")
    return told.device_per_video


def _sum(values: Any) -> float:
    return float(sum(value for value in values if value is not None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each of four measurements")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    found = ratios(options.seconds)
    for name, value in found.items():
        CONSOLE.print(f"{value:.3f}  {name}")
    if options.update:
        kept = {name: {"value": round(value, 4), "tolerance": TOLERANCE} for name, value in found.items()}
        BASELINE.write_text(json.dumps(manifest(seconds=options.seconds) | {"ratios": kept}, indent=2) + "\n")
        return
    sentences = worse(found, json.loads(BASELINE.read_text()))
    for sentence in sentences:
        CONSOLE.print(f"[red]worse:[/] {sentence}")
    raise SystemExit(1 if sentences else 0)


if __name__ == "__main__":
    main()
