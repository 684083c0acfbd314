"""`skyreels checkpoints`: toy weights, downloads, and waiting for downloads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from components.errors import CheckpointMismatch

POLL_S = 5.0
app = typer.Typer(no_args_is_help=True, help="Checkpoints on disk.")
Root = Annotated[Path, typer.Argument(help="The folder of all checkpoints.")]
Items = Annotated[
    list[str], typer.Argument(help="NAME=REPOSITORY@REVISION each; NAME alone stands for toy weights.", metavar="ITEM…")
]


@app.command("write-tiny")
def write_tiny(
    folder: Annotated[Path, typer.Argument(help="Where to write; an existing checkpoint is kept.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Writes the tiny reference-to-video checkpoint: the released files at toy size, random weights."""
    from components.tiny import write_r2v  # noqa: PLC0415 (torch is heavy; only this command needs it)

    write_r2v(folder, seed=seed)
    typer.echo(folder)


@app.command("fetch")
def fetch_all(root: Root, items: Items) -> None:
    """Downloads what is not whole yet; a download that was cut off goes on."""
    from components.checkpoints.download import Wanted, fetch  # noqa: PLC0415 (its package loads torch)

    for wanted in map(Wanted.parse, items):
        if wanted.repository is None:
            write_tiny(root / wanted.name)
        else:
            typer.echo(fetch(root, wanted))


@app.command("await")
def await_all(
    root: Root,
    items: Items,
    timeout_s: Annotated[float, typer.Option(help="Give up after so long; 0 = never.")] = 0,
) -> None:
    """Returns when all are whole, as `fetch` in another place makes them."""
    from components.checkpoints.download import Wanted, is_whole  # noqa: PLC0415 (its package loads torch)

    wanted = [Wanted.parse(item) for item in items]
    begun = time.monotonic()
    while missing := [one.name for one in wanted if not is_whole(root, one)]:
        if timeout_s and time.monotonic() - begun > timeout_s:
            raise CheckpointMismatch(f"{', '.join(missing)} below {root} are not whole after {timeout_s:.0f} s.")
        time.sleep(POLL_S)
