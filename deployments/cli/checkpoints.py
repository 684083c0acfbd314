"""`skyreels checkpoints`: writes tiny checkpoints in the released layouts, and checks released ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, help="Checkpoints on disk.")


@app.command("write-tiny")
def write_tiny(
    folder: Annotated[Path, typer.Argument(help="Where to write; an existing checkpoint is kept.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    model: Annotated[Literal["r2v", "extension"], typer.Option(help="Which release to imitate.")] = "r2v",
) -> None:
    """Writes a tiny checkpoint: a release's files at toy size, random weights."""
    from components import tiny  # noqa: PLC0415 (torch is heavy; only these commands need it)

    write = {"r2v": tiny.write_r2v, "extension": tiny.write_extension}[model]
    write(folder, seed=seed)
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
