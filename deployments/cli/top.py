"""`skyreels top`: what runs now, from the metrics endpoints alone."""

from __future__ import annotations

import time
from collections import deque
from typing import Annotated

import httpx
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cluster.monitoring.reading import Overview, Reading, overview, read
from deployments.cli.client import ServerError

DEFAULT_METRICS = "http://127.0.0.1:9464/metrics"
WINDOW_S = 60.0  # Ray's processes report every ten seconds, so shorter rates would jump


def top(
    metrics: Annotated[
        list[str] | None, typer.Option(help="Metrics endpoint of a node; repeat for each node's.", show_default=False)
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so long; 0 looks once.")] = None,
) -> None:
    """Shows the queue, stages, groups and steps per second until interrupted."""
    urls = metrics or [DEFAULT_METRICS]
    end_s = None if seconds is None else time.monotonic() + seconds
    readings: deque[Reading] = deque()
    with httpx.Client(timeout=30, trust_env=False) as client, Live(console=Console(), auto_refresh=False) as live:
        try:
            while True:
                readings.append(look(client, urls))
                while readings[-1].at_s - readings[0].at_s > WINDOW_S:
                    readings.popleft()
                live.update(render(overview(readings[0], readings[-1])), refresh=True)
                enough = len(readings) > 1 or seconds == 0  # one alone has no rates
                if end_s is not None and enough and time.monotonic() >= end_s:
                    return
                time.sleep(every)
        except KeyboardInterrupt:
            return


def look(client: httpx.Client, urls: list[str]) -> Reading:
    """One reading of all endpoints. ServerError: one refuses."""
    texts = []
    for url in urls:
        answer = client.get(url)
        if not answer.is_success:
            raise ServerError(f"{url} answered {answer.status_code}; it must be the metrics port of a Ray node.")
        texts.append(answer.text)
    return read(texts, time.monotonic())


def render(view: Overview) -> RenderableType:
    """The screen: no table that would be empty."""
    if not (view.jobs or view.stages or view.groups):
        return Text(
            "No metrics of SkyReels here. Processes report every ten seconds, the first time after their start."
        )
    jobs = " · ".join(f"{count} {state}" for state, count in view.jobs.items() if count) or "none"
    ended = " · ".join(f"{rate * 60:.1f} {state}/min" for state, rate in view.ended_per_s.items() if rate)
    head = Text(f"jobs: {jobs}" + (f"   ended: {ended}" if ended else ""))
    stages = Table("stage", "slots", "busy", "waiting", "oldest", "≈ queue", "≈ call")  # means as coarse as buckets
    for stage in view.stages:
        counts = (str(stage.slots), str(stage.busy), str(stage.ready))
        spans = (_span(stage.oldest_s), _about(stage.queue_s), _about(stage.call_s))
        stages.add_row(stage.name, *counts, *spans, style="red" if stage.ready and not stage.slots else None)
    groups = Table("group", "residents", "busy", "unsaved")
    for group in view.groups:
        share = "–" if group.busy is None else f"{min(group.busy, 1.0):.0%}"
        groups.add_row(group.name, f"{group.residents}/{group.places}", share, _span(group.unsaved_s))
    steps = Table("model", "resolution", "degree", "steps/s")
    for key, rate in sorted(view.steps_per_s.items()):
        steps.add_row(*key, f"{rate:.2f}")
    troubles = " · ".join(f"{name.replace('_', ' ')} {count:g}" for name, count in view.troubles.items())
    foot = [Text(f"in the last {view.window_s:.0f} s: {troubles}", style="red")] if troubles else []
    return Group(head, *(table for table in (stages, groups, steps) if table.row_count), *foot)


def _about(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2g} s" if seconds < 60 else f"{seconds / 60:.2g} min"


def _span(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
