"""The commands that load a system and tell of it: run, sweep, compare, report, scenarios, trace."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from loadtest.arrivals import Replay
from loadtest.baselines import LAYOUT_NAMES, MIXES, REFERENCE, Plan
from loadtest.baselines import run as run_baselines
from loadtest.chaos.scenario import KINDS
from loadtest.client.dialects import DIALECTS
from loadtest.folder import RunFolder
from loadtest.interrupt import Interrupts
from loadtest.knee import Knee, rounded
from loadtest.layouts import LAYOUTS, system
from loadtest.live import Live
from loadtest.manifest import described, manifest, versions
from loadtest.mixes import Scenario, ScenarioError, load, shipped
from loadtest.parquet import write_trace
from loadtest.report.compare import compare as compared
from loadtest.report.page import write
from loadtest.report.text import results
from loadtest.runner import Runner, Target
from loadtest.traces import plan

Name = Annotated[str, typer.Argument(help="A shipped scenario, or a YAML file.")]
Url = Annotated[str | None, typer.Option(help="The server; if left out, one is started here with tiny weights.")]
DialectName = Annotated[str, typer.Option("--dialect", help=f"What it speaks: {', '.join(DIALECTS)}.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder; one that holds the same run is taken up.")]
Keys = Annotated[Path | None, typer.Option(help="A file of API keys, a line for each tenant of the scenario in order.")]
Pages = Annotated[list[str] | None, typer.Option("--metrics", help="A page of metrics beside URL/metrics.")]
LayoutName = Annotated[str, typer.Option("--layout", help=f"Without --url, what is started: {', '.join(LAYOUTS)}.")]
Queued = Annotated[int, typer.Option(min=0, help="Without --url: waiting jobs beyond which it answers 429; 0 = none.")]
Running = Annotated[int, typer.Option(min=0, help="Without --url: jobs in progress at once; 0 = any number.")]
Cores = Annotated[str, typer.Option(help='Without --url: cores that it is pinned to, as "0,1".')]
Rate = Annotated[float | None, typer.Option(min=0, help="Requests per second instead of the scenario's.")]
Seconds = Annotated[float | None, typer.Option(min=1, help="Length of a measurement instead of the scenario's.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="How many seeds, from 1, instead of the scenario's.")]


def changed(scenario: Scenario, **changes: Any) -> Scenario:
    """A scenario with some keys replaced, checked again; None replaces nothing. ScenarioError."""
    told = {name: value for name, value in changes.items() if value is not None}
    try:
        return Scenario.model_validate(scenario.model_dump() | told)
    except ValueError as error:
        raise ScenarioError(f"{scenario.name}: {error}") from error


@dataclass
class Load:
    """Everything of a run before its first request. A context: a system of its own lives as long."""

    scenario: Scenario
    url: str | None
    dialect: str
    out: Path | None
    keys: Path | None
    pages: list[str] | None
    layout: str
    queued: int
    running: int
    cores: str

    def __post_init__(self) -> None:
        self.console = Console(stderr=True)
        if self.dialect not in DIALECTS:
            raise ScenarioError(f"--dialect {self.dialect!r} is unknown; known: {', '.join(DIALECTS)}.")
        if self.layout not in LAYOUTS:
            raise ScenarioError(f"--layout {self.layout!r} is unknown; known: {', '.join(LAYOUTS)}.")
        if unknown := set(filter(None, self.cores.split(","))) - set(map(str, range(1024))):
            raise ScenarioError(f"--cores {min(unknown)!r} is no core's number.")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(Interrupts())
            self.folder = RunFolder.begin(self.out or Path("load") / self.scenario.name, self._manifest())
            self.target = self._own(stack) if self.url is None else self._given(self.url)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def runner(self) -> Runner:
        """Measures; its numbers are shown on the terminal."""
        live = Live(self.console, self.scenario)
        self._stack.callback(live.close)
        return Runner(self.scenario, self.target, self.folder, live)

    def report(self) -> None:
        """Writes the pages and shows the table."""
        page, text = write(self.folder)
        self.console.print(f"report: {page} and {text}", soft_wrap=True)

    def _manifest(self) -> dict[str, Any]:
        bounds = f"queued {self.queued or 'any'}, running {self.running or 'any'}, cores {self.cores or 'any'}"
        where = self.url or f"layout {self.layout}, {bounds}"
        server = {} if self.url is None else {"server": described(self.url, self._keys())}
        return manifest(
            versions=versions(),
            target=f"{self.dialect} at {where}",
            **server,
            scenario=self.scenario.model_dump(mode="json"),
        )

    def _keys(self) -> dict[str, str]:
        secrets = self.keys.read_text(encoding="utf-8").split() if self.keys else []
        return dict(zip(self.scenario.tenants, secrets, strict=False))

    def _given(self, url: str) -> Target:
        pages = {"api": f"{url.rstrip('/')}/metrics"} | {page: page for page in self.pages or ()}
        return Target(url, self.dialect, self._keys(), pages)

    def _own(self, stack: ExitStack) -> Target:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skyreels-load-"))) / "system"
        own = system(
            folder,
            LAYOUTS[self.layout],
            self.scenario.models,
            queued=self.queued or None,
            running=self.running or None,
            cores=[int(core) for core in filter(None, self.cores.split(","))],
        )
        stack.callback(own.close)
        with self.console.status(f"starting {self.layout}: {LAYOUTS[self.layout].about}"):
            own.start()
        return Target(own.url, self.dialect, {}, {"api": f"{own.url}/metrics", "replicas": own.metrics_url})


def run(
    name: Name = "r2v",
    url: Url = None,
    dialect: DialectName = "openai-events",
    out: Out = None,
    keys: Keys = None,
    metrics: Pages = None,
    layout: LayoutName = "laptop",
    queued: Queued = 3,
    running: Running = 3,
    cores: Cores = "",
    rate: Rate = None,
    seconds: Seconds = None,
    seeds: Seeds = None,
) -> None:
    """One rate, every seed of the scenario, and a report. Cut off, it goes on where it was when it is called again."""
    asked = changed(load(name), rate_hz=rate, seconds=seconds, seeds=_seeds(seeds))

    async def measured(load: Load) -> None:
        async with load.runner() as runner:
            await runner.rate(rounded(asked.rate_hz))

    with Load(asked, url, dialect, out, keys, metrics, layout, queued, running, cores) as prepared:
        asyncio.run(measured(prepared))
        prepared.report()


def sweep(
    name: Name = "r2v",
    url: Url = None,
    dialect: DialectName = "openai-events",
    out: Out = None,
    keys: Keys = None,
    metrics: Pages = None,
    layout: LayoutName = "laptop",
    queued: Queued = 3,
    running: Running = 3,
    cores: Cores = "",
    seconds: Seconds = None,
    seeds: Seeds = None,
) -> None:
    """Rates up to the knee and beyond it, and a report. Cut off, it goes on where it was when it is called again."""
    asked = changed(load(name), seconds=seconds, seeds=_seeds(seeds))
    if asked.closed or isinstance(asked.arrivals, Replay):
        raise ScenarioError(f"{asked.name}: a sweep needs arrivals that have a rate; {asked.arrivals.kind} has none.")

    async def measured(load: Load) -> Knee:
        async with load.runner() as runner:
            return await runner.sweep()

    with Load(asked, url, dialect, out, keys, metrics, layout, queued, running, cores) as prepared:
        knee = asyncio.run(measured(prepared))
        held = "nothing" if knee.held_hz is None else f"{knee.held_hz:g} per second"
        missed = "" if knee.missed_hz is None else f", not {knee.missed_hz:g}"
        prepared.console.print(f"held: {held}{missed}")
        prepared.report()


def baselines(
    out: Annotated[Path, typer.Option(help="Where measurements go; what lies there is not made again.")] = Path(
        "load/baselines"
    ),
    mixes: Annotated[str, typer.Option(help="Scenarios, with commas.")] = ",".join(MIXES),
    layouts: Annotated[str, typer.Option(help="What is compared with the tuned monolith, with commas.")] = ",".join(
        LAYOUT_NAMES
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Measurements of each rate.")] = 3,
    seconds: Annotated[float, typer.Option(min=5, help="Length of one measurement.")] = 90.0,
    cores: Annotated[str, typer.Option(help='Cores that every system is pinned to, as "0,1".')] = "0,1",
) -> None:
    """Monoliths against disaggregated systems on the same cores (hours). Cut off, it goes on when called again."""
    console = Console(stderr=True)
    chosen = tuple(dict.fromkeys((REFERENCE, *layouts.split(","))))
    if unknown := [layout for layout in chosen if layout not in LAYOUTS]:
        raise ScenarioError(f"--layouts {unknown[0]!r} is unknown; known: {', '.join(LAYOUTS)}.")
    numbers = tuple(int(core) for core in cores.split(","))
    wanted = Plan(out, mixes.split(","), chosen, seeds=seeds, seconds=seconds, cores=numbers)
    with ExitStack() as stack:
        stack.enter_context(Interrupts())

        def watch(scenario: Scenario) -> Live:
            live = Live(console, scenario)
            stack.callback(live.close)
            return live

        page = run_baselines(wanted, watch, lambda text: console.print(text, soft_wrap=True))
    console.print(Markdown(page))


def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder.")],
    second: Annotated[Path, typer.Argument(help="Another's, of the same traffic.")],
) -> None:
    """Two runs of the same traffic, as ratios with intervals."""
    Console().print(Markdown(compared(results(RunFolder(first)), results(RunFolder(second)))))


def report(folder: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Writes a run's pages again, also of one that is not finished."""
    try:
        page, text = write(RunFolder(folder))
    except ValueError as error:
        raise ScenarioError(str(error)) from error
    Console(stderr=True).print(f"report: {page} and {text}", soft_wrap=True)


def scenarios() -> None:
    """What is shipped: traffic for run and sweep, and what chaos can do."""
    shown = Table("name", "for", "what")
    for name in shipped():
        shown.add_row(name, "run, sweep", load(name).about)
    for name, kind in KINDS.items():
        shown.add_row(name, "chaos --kind", kind.about)
    Console().print(shown)


def trace(
    out: Annotated[Path, typer.Argument(help="The Parquet file to be written.")],
    name: Annotated[str, typer.Option("--scenario", help="A shipped scenario, or a YAML file.")] = "r2v",
    rate: Rate = None,
    seconds: Seconds = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
) -> None:
    """Writes what a measurement would ask for, for `arrivals: {kind: replay}` here or elsewhere."""
    asked = changed(load(name), rate_hz=rate, seconds=seconds)
    requests = plan(asked, asked.rate_hz, seed)
    facts = {"scenario": asked.model_dump_json(), "rate_hz": f"{asked.rate_hz:g}", "seed": str(seed)}
    write_trace(out, requests, facts)
    Console(stderr=True).print(f"{len(requests)} requests: {out}", soft_wrap=True)


def _seeds(count: int | None) -> tuple[int, ...] | None:
    return None if count is None else tuple(range(1, count + 1))
