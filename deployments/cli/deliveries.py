"""Webhooks and uploads of a running server: what became of them, sending them again, the secret that signs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deployments.cli.client import DEFAULT_URL, Url, call, connect

deliveries = typer.Typer(no_args_is_help=True, help="Webhooks and uploads.")
webhooks = typer.Typer(no_args_is_help=True, help="How webhooks are signed.")


@deliveries.command("list")
def list_deliveries(
    state: Annotated[
        list[str] | None, typer.Option(help="pending, sending, delivered or dead; repeat for more.")
    ] = None,
    video: Annotated[str | None, typer.Option(help="Only those of this video.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    url: Url = DEFAULT_URL,
) -> None:
    """The newest webhooks and uploads."""
    params: dict[str, str | int | list[str]] = {"limit": limit, "state": state or []}
    if video is not None:
        params["video_id"] = video
    with connect(url) as client:
        page = call(client, "GET", "/v1/deliveries", params=params)
    table = Table()
    for name in ("id", "video", "kind", "state", "attempts"):
        table.add_column(name, no_wrap=True)
    table.add_column("receiver", overflow="ellipsis", no_wrap=True)
    table.add_column("last answer", overflow="fold")
    for item in page["data"]:
        answer = item["last_error"] or item["last_status"] or ""
        facts = (item["id"], item["video_id"], item["kind"], item["state"], item["attempts"], item["url"], answer)
        table.add_row(*map(str, facts))
    Console().print(table)


@deliveries.command("resend")
def resend(delivery_id: str, url: Url = DEFAULT_URL) -> None:
    """Sends a dead or delivered one again, under the same id."""
    with connect(url) as client:
        item = call(client, "POST", f"/v1/deliveries/{delivery_id}/resend")
    typer.echo(f"{item['id']} {item['state']}")


@webhooks.command("secret")
def secret(
    rotate: Annotated[bool, typer.Option(help="Make a new one; the one before signs too for a while.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """The secret that receivers verify webhooks with."""
    with connect(url) as client:
        if rotate:
            found = call(client, "POST", "/v1/webhooks/secret/rotate")
        else:
            found = call(client, "GET", "/v1/webhooks/secret")
    typer.echo(found["secret"])


@webhooks.callback()
def _group() -> None:
    """Keeps `secret` a command of its own: a group of one command would lose its name."""
