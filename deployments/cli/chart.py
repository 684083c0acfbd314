"""`skyreels helm-values`: the chart's values for a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster import config as configuration
from cluster.chart.files import as_yaml
from cluster.chart.values import helm_values


def print_values(
    profile: Annotated[str, typer.Option(help="A shipped profile that has a `kubernetes` section.")] = "dev-cpu",
    config: Annotated[Path | None, typer.Option(envvar="SKYREELS_CONFIG", help="A YAML file instead.")] = None,
) -> None:
    """Prints values for `helm install -f`: worker groups and the Serve config."""
    settings = configuration.load(config) if config else configuration.profile(profile)
    typer.echo(as_yaml(helm_values(settings)), nl=False)
