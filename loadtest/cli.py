"""Entry point of `skyreels-load`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.chaos.client import GaveUp
from loadtest.chaos.means import Means
from loadtest.chaos.receiver import Receiver
from loadtest.chaos.run import KILL_EVERY_S, OPEN_JOBS, Options, run
from loadtest.chaos.scenario import KINDS
from loadtest.commands import baselines, compare, report, scenarios, sweep, trace
from loadtest.commands import run as run_load
from loadtest.folder import OtherRun
from loadtest.hurts import Nobody
from loadtest.interrupt import Interrupts
from loadtest.local import LocalSystem, NotStarted
from loadtest.mixes import ScenarioError
from loadtest.parquet import BadFile
from loadtest.processes import NotHere
from loadtest.report.compare import NotAlike

TENANTS = ("ada", "ben", "cy")
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
REFUSALS = (GaveUp, Nobody, NotHere, NotStarted, OtherRun, NotAlike, BadFile, ScenarioError, httpx.HTTPError)
HASTE: dict[str, Any] = {  # short leases: more hurts fit into a run, and each is noticed sooner
    "scheduler": {"heartbeat_s": 0.2, "lease_ttl_s": 4.0, "leader_ttl_s": 2.0},
    "denoise": {"snapshot_s": 0.5, "step_floor_s": 3.0},
    "delivery": {"lease_s": 4.0, "backoff_s": 0.5, "backoff_max_s": 4.0},
}


@app.callback()
def _load() -> None:
    """Load and chaos for a running skyreels-serve."""


@app.command()
def chaos(
    url: Annotated[str | None, typer.Option(help="A system on this machine; if left out, a new one.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many jobs.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of everything random: requests, cancels, who is hurt when.")] = 1,
    kill_every: Annotated[float, typer.Option(min=0.1, help="Seconds between two hurts, on average.")] = KILL_EVERY_S,
    open_jobs: Annotated[int, typer.Option("--open", min=1, help="Jobs open at once.")] = OPEN_JOBS,
    keys: Annotated[
        Path | None, typer.Option(help="With --url: a file of API keys, one per line and tenant, the first an admin's.")
    ] = None,
    receiver_port: Annotated[
        int,
        typer.Option(
            min=0, help="With --url: its media.allow_hosts must name 127.0.0.1 and this port; 0 = no webhooks."
        ),
    ] = 0,
    fail_share: Annotated[
        float, typer.Option(min=0, max=0.95, help="Of the webhooks that the receiver refuses.")
    ] = 0.3,
    kind: Annotated[
        str, typer.Option(help=f"What is done: {', '.join(KINDS)}; see `skyreels-load scenarios`.")
    ] = "mixed",
    report: Annotated[Path, typer.Option(help="Where chaos.json and chaos.md go.")] = Path("chaos"),
) -> None:
    """Many small jobs while processes are killed and frozen; exit code 1 when anything was lost, doubled or untrue.

    The first interrupt or SIGTERM begins no more jobs, follows the open ones and writes the report; another ends all.
    """
    if kind not in KINDS:
        raise ScenarioError(f"--kind {kind!r} is unknown; known: {', '.join(KINDS)}.")
    if KINDS[kind].own and url is not None:
        raise ScenarioError(f"--kind {kind} needs a system of its own; leave --url out, or choose kills or stops.")
    console = Console(stderr=True)
    secrets = tuple(keys.read_text().split()) if keys else ()
    system: LocalSystem | None = None
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        receiver = None
        if url is None or receiver_port:
            receiver = stack.enter_context(Receiver(receiver_port, fail_share, seed))
        if url is None and receiver is not None:
            with console.status("starting a system"):
                system = _own(stack, receiver)
                secrets = tuple(system.create_key(name, admin=name == TENANTS[0]) for name in TENANTS)
                url = system.start().url
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("jobs", total=jobs)
            found = run(
                Options(
                    url=str(url),
                    jobs=jobs,
                    seed=seed,
                    kill_every_s=kill_every,
                    open_jobs=open_jobs,
                    keys=secrets,
                    receiver=receiver,
                    kind=kind,
                    means=None if system is None else Means(system),
                    enough=interrupts.defer(),
                ),
                lambda done, hurt: bar.update(task, completed=done, description=f"{done} jobs, {hurt} hurts"),
            )
        found.write(report)
        if system is not None and not found.passed:
            system.close()
            shutil.copytree(system.folder / "state", report / "state", dirs_exist_ok=True)  # what there is to look into
    console.print(Markdown(found.markdown()))
    console.print(f"report: {report / 'chaos.md'}")
    if not found.passed:
        raise typer.Exit(1)


def _own(stack: ExitStack, receiver: Receiver) -> LocalSystem:
    """A laptop system in a temporary folder, with API keys, not started yet."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skyreels-chaos-"))) / "system"
    overrides = {**HASTE, "auth": "keys", "media": {"allow_hosts": [receiver.host]}}
    system = LocalSystem(folder, topology="disaggregated", overrides=overrides)
    stack.callback(system.close)
    return system


for name, command in (
    ("run", run_load),
    ("sweep", sweep),
    ("baselines", baselines),
    ("compare", compare),
    ("report", report),
    ("scenarios", scenarios),
    ("trace", trace),
):
    app.command(name)(command)


def main() -> None:
    """Runs the command line."""
    try:
        app()
    except REFUSALS as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", soft_wrap=True)
        sys.exit(1)
