"""Entry point of `skyreels`: every error of ours leaves as one line and exit code 1, never as a traceback."""

from __future__ import annotations

import sys

import httpx
import typer
from rich.console import Console

from cluster.errors import SkyreelsError
from components.errors import ComponentError
from deployments.cli import chart, checkpoints, client, cluster, deliveries, keys, serve, top, usage

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("serve")(serve.serve)
app.command("generate")(client.generate)
app.command("status")(client.status)
app.command("top")(top.top)
app.command("list")(client.list_videos)
app.command("cancel")(client.cancel)
app.command("models")(client.models)
app.command("helm-values")(chart.print_values)
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(cluster.app, name="cluster")
app.add_typer(deliveries.deliveries, name="deliveries")
app.add_typer(deliveries.webhooks, name="webhooks")
app.add_typer(keys.app, name="keys")
app.add_typer(usage.app, name="usage")


def main() -> None:
    """Runs the command line."""
    console = Console(stderr=True)
    try:
        app()
    except (SkyreelsError, ComponentError) as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True)
        sys.exit(1)
    except httpx.TransportError as error:
        console.print(f"[red]error:[/] The server did not answer ({error}); is `skyreels serve` running?")
        sys.exit(1)
