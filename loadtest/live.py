"""How a run goes, on the terminal: a bar for the measurement, and its numbers so far."""

from __future__ import annotations

import statistics
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.measure import Measured
from loadtest.mixes import Scenario
from loadtest.records import JobRow, Outcome
from loadtest.slo import Summary, summarise

SHORT = {
    Outcome.COMPLETED: "done",
    Outcome.REJECTED: "rejected",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "cancelled",
    Outcome.UNFINISHED: "unfinished",
}


class Live:
    """Shows one measurement after the other."""

    def __init__(self, console: Console, scenario: Scenario) -> None:
        self._console = console
        self._scenario = scenario
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[numbers]}"), console=console, transient=True)
        self._task = self._bar.add_task("", numbers="", start=False)
        self._rows: list[JobRow] = []

    def close(self) -> None:
        """Gives the terminal back."""
        self._bar.stop()

    def begins(self, rate_hz: float, seed: int, requests: int, seconds: float) -> None:
        self._rows = []
        name = f"{self._scenario.closed.users} users" if self._scenario.closed else f"{rate_hz:g}/s"
        total = None if self._scenario.closed else requests
        self._bar.reset(self._task, total=total, description=f"{name} seed {seed}", numbers="")
        self._bar.start()

    def ended(self, row: JobRow) -> None:
        self._rows.append(row)
        self._bar.update(self._task, completed=len(self._rows), numbers=numbers(self._rows))

    def measured(self, point: Measured, *, before: bool) -> None:
        self._bar.stop()
        told = line(summarise([point], self._scenario))
        self._console.print(f"{told}, seed {point.seed}{' (measured before)' if before else ''}", highlight=False)


def numbers(rows: list[JobRow]) -> str:
    """What is known of a measurement that goes on."""
    counts = Counter(row.outcome for row in rows)
    told = [f"{count} {SHORT[outcome]}" for outcome, count in counts.items()]
    latencies = [row.latency_s for row in rows if row.outcome is Outcome.COMPLETED and row.latency_s is not None]
    if latencies:
        told.append(f"p50 {statistics.median(latencies):.2f} s")
    return " · ".join(told)


def line(summary: Summary) -> str:
    """A rate in one line."""
    end = summary.part("end to end")
    half = None if end is None else end.quantiles[0.5]
    parts = [
        f"{summary.offered_hz:.2f}/s offered",
        f"{summary.attainment.value:.0%} in time",
        f"goodput {summary.goodput_hz.value:.2f}/s",
        *(f"{count} {SHORT[outcome]}" for outcome, count in summary.outcomes.items() if count),
    ]
    return ", ".join(parts) + ("" if half is None else f", p50 {half.value:.2f} s")
