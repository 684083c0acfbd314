"""`skyreels usage`: the ledger for whoever bills or plans."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cluster import export
from cluster.errors import InvalidRequest
from cluster.store.base import JobStore
from deployments.cli.store import ConfigFile, Profile, on_store

app = typer.Typer(no_args_is_help=True, help="What was used and charged.")


@app.callback()
def usage() -> None:
    """What was used and charged."""


@app.command("export")
def export_usage(
    out: Annotated[Path, typer.Option(help="Parquet of stage attempts; FILE.charges.parquet beside it has the money.")],
    since: Annotated[datetime | None, typer.Option(help="From this moment on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this moment, UTC.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    profile: Profile = "laptop",
    config: ConfigFile = None,
) -> None:
    """Writes one row per stage attempt, joined with its job, and one row per charged result."""
    begin, end = (None if moment is None else moment.replace(tzinfo=UTC) for moment in (since, until))
    charges = out.with_name(f"{out.stem}.charges.parquet")

    async def act(store: JobStore) -> tuple[int, int]:
        attempts = store.usage_rows(tenant_id=tenant, since=begin, until=end)
        charged = store.charge_rows(tenant_id=tenant, since=begin, until=end)
        return (
            await export.write(out, export.ATTEMPTS, attempts),
            await export.write(charges, export.CHARGES, export.in_dollars(charged)),
        )

    try:
        counts = on_store(profile, config, act)
    except OSError as error:
        raise InvalidRequest(f"{error.filename or out} cannot be written: {error.strerror}.") from error
    typer.echo(f"{out} {counts[0]} attempts\n{charges} {counts[1]} charges")
