"""`skyreels checkpoints`: writes tiny checkpoints in the released layouts, and checks released ones."""

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


@app.command("verify")
def verify(folder: Annotated[Path, typer.Argument(help="A downloaded release.")]) -> None:
    """Compares a release with its own configuration, key by key and shape by shape, without reading its weights."""
    from components.checkpoints.verify import verify as check  # noqa: PLC0415

    report = check(folder)
    typer.echo(f"{folder}: {report.layout}")
    for part in report.parts:
        found = part.problem or f"whole, {part.tensors} tensors, {part.parameters:,} parameters"
        typer.echo(f"  {part.name}: {found}")
    if not report.whole:
        raise typer.Exit(1)
