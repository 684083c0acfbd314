"""What is compared with what, from measurements that lie in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from cluster.config import load
from loadtest import baselines
from loadtest.arrivals import Closed
from loadtest.baselines import REFERENCE, Plan, report, run, scenario
from loadtest.folder import RunFolder
from loadtest.layouts import LAYOUTS, system
from loadtest.live import Live
from loadtest.measure import Measured
from loadtest.mixes import Scenario
from loadtest.mixes import load as load_scenario
from tests.perf import check
from tests.unit.loadtest.rows import row
from tests.unit.loadtest.synthetic import Synthetic, constant, served


def kept(plan: Plan, layout: str, completed: int, in_time: int) -> None:
    """A layout's measurements: so many completed in the closed loop, so many in time of ten at 85 %."""
    mix = scenario(plan, "r2v")
    told = {"date": "today", "commit": "c", "machine": "m", "python": "p", "target": layout}
    closed = mix.model_copy(update={"arrivals": Closed(kind="closed", users=4)})
    for part, asked, rate_hz, count in (("saturation", closed, 0.5, completed), ("open", mix, 0.85, 10)):
        folder = RunFolder.begin(plan.out / "r2v" / layout / part, told | {"scenario": asked.model_dump(mode="json")})
        for seed in asked.seeds:
            folder.start(rate_hz, seed)
            late = [99.0 if part == "open" and i >= in_time else 0.0 for i in range(count)]
            rows = [row(i, intended_s=20.0, ended_s=21.0 + late[i], slo="interactive") for i in range(count)]
            folder.finish(Measured(rate_hz, seed, rows=rows))


def test_layouts_are_told_as_ratios_to_the_tuned_monolith(tmp_path: Path) -> None:
    plan = Plan(tmp_path, mixes=("r2v",), layouts=(REFERENCE, "shared"), shares=(0.85,), seeds=2, seconds=60.0)
    window_s = scenario(plan, "r2v").window_s
    kept(plan, REFERENCE, completed=round(window_s), in_time=10)
    kept(plan, "shared", completed=round(window_s * 0.8), in_time=9)
    page = report(plan)
    assert "| r2v | shared | 0.800 | 0.80 |" in page
    assert "| r2v | 85%, 0.85/s | shared | 2 | in time | 0.900 | 0.900 (0.900–0.900) |" in page
    assert "| r2v | 85%, 0.85/s | monolith | 2 | in time | 1.000 | 1.000 (1.000–1.000) |" in page


@contextmanager
def small(*_: object, **__: object) -> Iterator[SimpleNamespace]:
    """In place of a whole system."""
    with served(Synthetic(2, constant(0.05)).app) as url:
        yield SimpleNamespace(url=url, metrics_url=f"{url}/metrics")


def quick(name: str) -> Scenario:
    return load_scenario(name).model_copy(update={"settle_s": 0.0})


def test_every_layout_is_measured_once_at_the_same_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "system", small)
    monkeypatch.setattr(baselines, "load", quick)
    plan = Plan(tmp_path, mixes=("r2v",), layouts=(REFERENCE, "shared"), shares=(0.5,), seeds=1, seconds=1.0)
    started: list[str] = []

    def watch(scenario: Scenario) -> Live:
        return Live(Console(quiet=True), scenario)

    page = run(plan, watch, started.append)
    assert [text.split(",")[0] for text in started] == ["r2v: monolith", "r2v: shared"]
    rates = {path.name for path in tmp_path.glob("r2v/*/open/points/*")}
    assert len(rates) == 1
    assert (tmp_path / "baselines.md").read_text() == page
    assert run(plan, watch, started.append) == page
    assert len(started) == 2


def test_ratios_are_made_of_four_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "system", small)
    monkeypatch.setattr(check, "load", quick)
    monkeypatch.setattr(check, "CONSOLE", Console(quiet=True))
    found = check.ratios(0.8)
    assert found.keys() == check.BETTER.keys()
    assert all(value >= 0 for value in found.values())


def test_every_layout_is_a_valid_configuration(tmp_path: Path) -> None:
    for name, layout in LAYOUTS.items():
        models = ["skyreels-v3-r2v", "skyreels-v3-extend", "skyreels-v3-shot", "skyreels-v3-avatar"]
        own = system(tmp_path / name, layout, models, queued=3, running=3, cores=(0, 1))
        config = load(own.config)
        assert (config.limits.default.queued, config.denoise.loaded) == (3, 4), name
        own.close()
    assert load(tmp_path / "original" / "config.yaml").pools[0].threads == 2
    assert load(tmp_path / "original" / "config.yaml").limits.default.running == 1


def test_what_is_asked_is_the_same_for_all(tmp_path: Path) -> None:
    mix = scenario(Plan(tmp_path, seeds=3, seconds=90.0), "all-v3")
    assert (mix.seeds, mix.cancels.share, mix.seconds) == ((1, 2, 3), 0.0, 90.0)
