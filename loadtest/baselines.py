"""Monoliths against disaggregated systems: the same work on the same cores.

Every layout of every mix is first asked as fast as it answers (a closed loop: its saturation), then at shares of the
tuned monolith's saturation, the same requests at the same instants for all. Only process counts differ.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.arrivals import Closed
from loadtest.folder import RunFolder
from loadtest.knee import rounded
from loadtest.layouts import LAYOUTS, system
from loadtest.manifest import manifest, versions
from loadtest.measure import Measured
from loadtest.mixes import Scenario, load
from loadtest.report.compare import KINDS
from loadtest.report.text import Results, results, shown, table
from loadtest.runner import Runner, Target, Watch
from loadtest.statistics import ratio

REFERENCE = "monolith"
LAYOUT_NAMES = (REFERENCE, "original", "shared", "apart")
MIXES = ("r2v", "avatar", "all-v3", "v2")
SHARES = (0.5, 0.85)
USERS = 4  # of the closed loop: more than any layout works on at once
HEAD = ("mix", "load", "layout", "seeds", "what", "value", "over the tuned monolith's")
SATURATION = ("mix", "layout", "completed, per s", "over the tuned monolith's")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared. `seconds` is the length of one measurement."""

    out: Path
    mixes: Sequence[str] = MIXES
    layouts: Sequence[str] = LAYOUT_NAMES
    shares: Sequence[float] = SHARES
    seeds: int = 3
    seconds: float = 90.0
    cores: Sequence[int] = (0, 1)


def run(plan: Plan, watch: Callable[[Scenario], Watch], say: Callable[[str], None]) -> str:
    """Measures what is not measured yet; the page of Markdown, which is also written to the folder.

    Raises:
        NotStarted: a system did not come up.
        OtherRun: the folder holds measurements of other lengths or seeds.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - set(plan.cores) or before)  # the systems' cores are theirs where there are others
    try:
        for name in plan.mixes:
            mix = scenario(plan, name)
            reference_hz: float | None = None
            for layout in (REFERENCE, *(layout for layout in plan.layouts if layout != REFERENCE)):
                reference_hz = _layout(plan, mix, layout, reference_hz, watch, say)
    finally:
        os.sched_setaffinity(0, before)
    page = report(plan)
    (plan.out / "baselines.md").write_text(page, encoding="utf-8")
    return page


def scenario(plan: Plan, name: str) -> Scenario:
    """A mix as every layout is asked for it: one tenant, nobody cancels, nothing is refused."""
    told: dict[str, Any] = load(name).model_dump() | {
        "seconds": plan.seconds,
        "warmup_s": min(15.0, plan.seconds / 4),
        "seeds": tuple(range(1, plan.seeds + 1)),
        "cancels": {"share": 0.0},
        "drain_s": plan.seconds,
    }
    return Scenario.model_validate(told)


def _layout(
    plan: Plan,
    mix: Scenario,
    layout: str,
    reference_hz: float | None,
    watch: Callable[[Scenario], Watch],
    say: Callable[[str], None],
) -> float:
    """Everything of one layout; the reference's saturation."""
    closed = mix.model_copy(update={"arrivals": Closed(kind="closed", users=USERS), "seeds": mix.seeds[:1]})
    parts = {"saturation": closed, "open": mix}
    folders = {
        part: RunFolder.begin(plan.out / mix.name / layout / part, _manifest(plan, layout, asked))
        for part, asked in parts.items()
    }
    if not _whole(plan, mix, folders, reference_hz):
        with tempfile.TemporaryDirectory(prefix="skyreels-baselines-") as held:
            say(f"{mix.name}: {layout}, {LAYOUTS[layout].about}")
            folder = Path(held) / "system"
            with system(folder, LAYOUTS[layout], mix.models, queued=None, running=None, cores=plan.cores) as own:
                target = Target(own.url, pages={"api": f"{own.url}/metrics", "replicas": own.metrics_url})

                async def measured() -> None:
                    async with Runner(closed, target, folders["saturation"], watch(closed)) as runner:
                        saturation_hz = (await runner.rate(closed.rate_hz)).throughput_hz.value
                    async with Runner(mix, target, folders["open"], watch(mix)) as runner:
                        for share in plan.shares:
                            await runner.rate(rounded(share * (reference_hz or saturation_hz)))

                asyncio.run(measured())
    return reference_hz or saturation(plan, mix.name, layout)


def _whole(plan: Plan, mix: Scenario, folders: dict[str, RunFolder], reference_hz: float | None) -> bool:
    """Whether nothing of a layout is left to be measured."""
    if not folders["saturation"].all():
        return False
    known_hz = reference_hz or results(folders["saturation"]).summaries[0].throughput_hz.value
    rates = [rounded(share * known_hz) for share in plan.shares]
    return all(folders["open"].finished(rate_hz, seed) for rate_hz in rates for seed in mix.seeds)


def saturation(plan: Plan, mix: str, layout: str) -> float:
    """What a layout completes per second when it is asked as fast as it answers."""
    return results(RunFolder(plan.out / mix / layout / "saturation")).summaries[0].throughput_hz.value


def _manifest(plan: Plan, layout: str, asked: Scenario) -> dict[str, Any]:
    cores = ",".join(map(str, plan.cores))
    return manifest(
        versions=versions(), target=f"layout {layout} on cores {cores}", scenario=asked.model_dump(mode="json")
    )


def report(plan: Plan) -> str:
    """The page. OtherRun, ValueError: something is not measured yet."""
    first = results(RunFolder(plan.out / plan.mixes[0] / REFERENCE / "open"))
    told = first.manifest
    lines = ["# Monoliths and disaggregated systems", ""]
    lines += [f"- {name}: {told[name]}" for name in ("date", "commit", "machine", "python")]
    lines += [f"- cores of the systems: {', '.join(map(str, plan.cores))}"]
    lines += [f"- {name}: {LAYOUTS[name].about}" for name in plan.layouts]
    lines += ["", "## Saturation", "", f"{USERS} callers that wait for their answers, one seed.", ""]
    lines += table(SATURATION, _saturations(plan))
    shares = " and ".join(f"{share:.0%}" for share in plan.shares)
    lines += [f"## At {shares} of the tuned monolith's saturation", ""]
    lines += ["Ratios are paired by seed, with intervals of 95 %.", "", *table(HEAD, _rows(plan))]
    return "\n".join(lines)


def _saturations(plan: Plan) -> Iterator[tuple[str, ...]]:
    for mix in plan.mixes:
        reference_hz = saturation(plan, mix, REFERENCE)
        for layout in plan.layouts:
            found = saturation(plan, mix, layout)
            yield mix, layout, f"{found:.3f}", f"{found / reference_hz:.2f}"


def _rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    for mix in plan.mixes:
        reference_hz = saturation(plan, mix, REFERENCE)
        against = results(RunFolder(plan.out / mix / REFERENCE / "open"))
        for share in plan.shares:
            rate_hz = rounded(share * reference_hz)
            for layout in plan.layouts:
                found = results(RunFolder(plan.out / mix / layout / "open"))
                for name, of in KINDS.items():
                    pairs = [
                        (ours, theirs)
                        for one, other in zip(_at(found, rate_hz), _at(against, rate_hz), strict=True)
                        if (ours := of(one, found)) is not None and (theirs := of(other, against)) is not None
                    ]
                    if pairs:
                        values = [ours for ours, _ in pairs]
                        over = shown(ratio(values, [theirs for _, theirs in pairs]), 3)
                        mean = f"{sum(values) / len(values):.3f}"
                        yield mix, f"{share:.0%}, {rate_hz:g}/s", layout, str(len(pairs)), name, mean, over


def _at(found: Results, rate_hz: float) -> Sequence[Measured]:
    return next((points for _, points in found.rates if points[0].rate_hz == rate_hz), ())
