"""`skyreels checkpoints`: writes tiny checkpoints in the released layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.registry import MODELS, Registry

app = typer.Typer(no_args_is_help=True, help="Checkpoints on disk.")


@app.command("write-tiny")
def write_tiny(
    folder: Annotated[Path, typer.Argument(help="Where to write; an existing checkpoint is kept.")],
    model: Annotated[str, typer.Option(help="Whose checkpoint, by any of its names.")] = "skyreels-v3-r2v",
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Writes a model's tiny checkpoint: the released files at toy size, random weights."""
    from components.tiny import WRITERS  # noqa: PLC0415 (torch is heavy; only this command needs it)

    WRITERS[Registry(MODELS.values()).find(model).task](folder, seed=seed)
    typer.echo(folder)
