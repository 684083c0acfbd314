"""`skyreels keys`: who may use the Api, as which tenant."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.errors import InvalidRequest
from cluster.tenancy import digest, new_secret
from deployments.cli.store import ConfigFile, Profile, on_store

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
app = typer.Typer(no_args_is_help=True, help="API keys.")


@app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Who the key's jobs belong to; a new name makes a new tenant.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    admin: Annotated[bool, typer.Option("--admin", help="May see the whole installation.")] = False,
    profile: Profile = "laptop",
    config: ConfigFile = None,
) -> None:
    """Makes a key and prints its secret, which is shown only now."""
    _check("--tenant", tenant)
    _check("--name", name)
    secret = new_secret()
    key = on_store(profile, config, lambda store: store.create_key(tenant, name, digest(secret), admin=admin))
    Console(stderr=True).print(f"{key.id} of tenant {tenant}; keep the secret, it is not shown again:")
    typer.echo(secret)


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    profile: Profile = "laptop",
    config: ConfigFile = None,
) -> None:
    """The keys, never their secrets."""
    table = Table("id", "tenant", "name", "admin", "created", "last used", "revoked")
    for key in on_store(profile, config, lambda store: store.list_keys(tenant)):
        moments = [
            "" if at is None else f"{at:%Y-%m-%d %H:%M}" for at in (key.created_at, key.last_used_at, key.revoked_at)
        ]
        table.add_row(key.id, key.tenant_id, key.name, "yes" if key.admin else "", *moments)
    Console().print(table)


@app.command("revoke")
def revoke(key_id: str, profile: Profile = "laptop", config: ConfigFile = None) -> None:
    """Ends a key, on every replica within seconds."""
    on_store(profile, config, lambda store: store.revoke_key(key_id))
    typer.echo(f"{key_id} revoked")


def _check(option: str, value: str) -> None:
    if not re.fullmatch(NAME, value):
        raise InvalidRequest(f"{option} takes 1 to 63 letters, digits, dots, dashes or underscores; got {value!r}.")
