"""`skyreels cluster`: an installation on Kubernetes, from before it is installed to its upgrades."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.errors import ConfigError, Unavailable
from deployments.cli.client import Url, call, connect

if TYPE_CHECKING:
    from cluster.kube.client import Cluster

app = typer.Typer(no_args_is_help=True, help="An installation on Kubernetes.")

Name = Annotated[str, typer.Argument(help="The RayService; the chart names it after the release.")]
Manifests = Annotated[
    str, typer.Option("--file", "-f", help="Rendered manifests; - reads `helm template …` from a pipe.")
]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="The kubeconfig's if left out.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]
Kubeconfig = Annotated[str | None, typer.Option(help="Else $KUBECONFIG, ~/.kube/config, or the pod's own account.")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait.")]
POLL_S = 2.0
_MARKS = {True: "[green]pass[/]", False: "[red]fail[/]", None: "[yellow]?[/]   "}


@contextmanager
def _cluster(kubeconfig: str | None, context: str | None, namespace: str | None) -> Iterator[Cluster]:
    try:
        from cluster.kube.client import Cluster as Connected  # noqa: PLC0415 (heavy, and only operators have it)
    except ModuleNotFoundError as error:
        raise ConfigError("The Kubernetes client is missing; pip install 'skyreels-serve[kube]'.") from error
    found = Connected.connect(kubeconfig_path=kubeconfig, context=context, namespace=namespace)
    try:
        yield found
    finally:
        found.close()


def _read(file: str) -> list[dict[str, Any]]:
    from cluster.kube.kinds import read_manifests  # noqa: PLC0415

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from error
    return read_manifests(text, "standard input" if file == "-" else file)


@app.command("preflight")
def preflight(
    file: Annotated[str | None, typer.Option("--file", "-f", help="Rendered manifests, for GPUs and storage.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Looks whether the cluster has what an installation needs: a line each, with the remedy."""
    from cluster.kube import preflight as checks  # noqa: PLC0415

    objects = _read(file) if file else []
    with _cluster(kubeconfig, context, namespace) as cluster:
        found = checks.preflight(cluster, objects)
    console = Console()
    for check in found:
        remedy = f" → {check.remedy}" if check.remedy else ""
        console.print(f"{_MARKS[check.passed]} {escape(f'{check.name}: {check.found}{remedy}')}", soft_wrap=True)
    checks.demand(found)


@app.command("plan")
def plan(file: Manifests, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Says what applying a rendered chart would do: nothing, in place, replica restart, or a new cluster."""
    from cluster.kube.kinds import ray_service  # noqa: PLC0415
    from cluster.kube.plan import read_plan  # noqa: PLC0415

    new = ray_service(_read(file), file)
    with _cluster(kubeconfig, context, namespace) as cluster:
        found = read_plan(cluster, new)
    for line in found.lines:
        typer.echo(line)


@app.command("apply")
def apply(
    file: Manifests,
    force: Annotated[bool, typer.Option("--force", help="Take over fields that another manager owns.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Applies rendered manifests on the server's side; what is not in them stays."""
    from cluster.kube import operations  # noqa: PLC0415

    objects = _read(file)
    with _cluster(kubeconfig, context, namespace) as cluster:
        for done in operations.apply(cluster, objects, force=force):
            typer.echo(f"{done.name} {'applied' if done.changed else 'unchanged'}")


@app.command("status")
def status(name: Name, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Shows an installation on one screen."""
    from cluster.kube.status import read_status  # noqa: PLC0415

    with _cluster(kubeconfig, context, namespace) as cluster:
        found = read_status(cluster, name)
    console = Console()
    state = "[green]ready[/]" if found.waiting is None else f"[yellow]not ready[/]: {escape(found.waiting)}"
    console.print(f"[bold]{found.service}[/] in {found.namespace}: {state}{', drained' if found.drained else ''}")
    console.print(f"cluster {found.active or 'none'}{f', preparing {found.pending}' if found.pending else ''}")
    if found.deployments:
        table = Table("deployment", "state", box=None)
        for deployment, told in sorted(found.deployments.items()):
            table.add_row(deployment, escape(told))
        console.print(table)
    if found.groups:
        table = Table("worker group", "min", "now", "max", "pods", box=None)
        for group in found.groups:
            pods = ", ".join(f"{count} {phase}" for phase, count in sorted(group.pods.items())) or "none"
            table.add_row(group.name, str(group.least), str(group.replicas), str(group.most), pods)
        console.print(table)
    for line in found.warnings:
        console.print(f"[yellow]warning[/] {escape(line)}", soft_wrap=True)
    for line in found.hidden:
        console.print(f"[yellow]not shown[/] {escape(line)}", soft_wrap=True)


@app.command("scale-bounds")
def scale_bounds(
    name: Name,
    group: Annotated[list[str] | None, typer.Option(help="GROUP=MIN:MAX; repeat for more.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Sets the bounds of worker groups in the running cluster; to those of the RayService if none are given."""
    from cluster.kube.operations import scale_bounds as scale  # noqa: PLC0415

    wanted = dict(_bounds(text) for text in group) if group else None
    with _cluster(kubeconfig, context, namespace) as cluster:
        changed = scale(cluster, name, wanted)
    for pool, (least, most) in changed.items():
        typer.echo(f"{pool}: {least} to {most} replicas")
    if not changed:
        typer.echo("the running cluster has these bounds already")


def _bounds(text: str) -> tuple[str, tuple[int, int]]:
    group, _, bounds = text.partition("=")
    least, _, most = bounds.partition(":")
    if not (group and least.isdigit() and most.isdigit()):
        raise ConfigError(f"--group {text}: write GROUP=MIN:MAX, like dit=1:4.")
    return group, (int(least), int(most))


@app.command("drain")
def drain(
    name: Name,
    url: Url = "",
    timeout_s: Timeout = 1800.0,
    suspend: Annotated[bool, typer.Option("--suspend", help="Then end all pods; jobs wait in the store.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Begins no stage any more and, with --url, waits until those that run have ended."""
    from cluster.kube import operations  # noqa: PLC0415

    if suspend and not url:
        raise ConfigError("--suspend needs --url, by which it sees that nothing runs any more.")
    with _cluster(kubeconfig, context, namespace) as cluster:
        typer.echo("draining" if operations.drain(cluster, name) else "is drained already")
        if url:
            _wait_idle(url, timeout_s)
            typer.echo("nothing runs")
        if suspend:
            operations.suspend(cluster, name)
            typer.echo("suspended")


def _wait_idle(url: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    with connect(url) as client:
        while True:
            try:
                busy = {stage: n for stage, n in call(client, "GET", "/v1/status")["busy"].items() if n}
            except httpx.TransportError as error:
                busy = {f"unknown ({type(error).__name__})": 1}
            if not busy:
                return
            if time.monotonic() > deadline:
                told = ", ".join(f"{count} {stage}" for stage, count in busy.items())
                raise Unavailable(f"Still running after {timeout_s:g} s: {told}.", retry_after_s=60)
            time.sleep(POLL_S)


@app.command("resume")
def resume(name: Name, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Ends a drain and a suspension."""
    from cluster.kube import operations  # noqa: PLC0415

    with _cluster(kubeconfig, context, namespace) as cluster:
        typer.echo("resumed" if operations.resume(cluster, name) else "is not drained")


@app.command("wait")
def wait(
    name: Name,
    timeout_s: Timeout = 1800.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Returns once the RayService serves what its spec says."""
    from cluster.kube import operations  # noqa: PLC0415

    with _cluster(kubeconfig, context, namespace) as cluster:
        operations.wait(cluster, name, timeout_s=timeout_s, report=typer.echo)
    typer.echo("ready")
