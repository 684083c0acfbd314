"""`skyreels checkpoints`: writes tiny checkpoints in the released layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Checkpoints on disk.")


@app.command("write-tiny")
def write_tiny(
    folder: Annotated[Path, typer.Argument(help="Where to write; an existing checkpoint is kept.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Writes the tiny reference-to-video checkpoint: the released files at toy size, random weights."""
    from components.tiny import write_r2v  # noqa: PLC0415 (torch is heavy; only this command needs it)

    write_r2v(folder, seed=seed)
    typer.echo(folder)
