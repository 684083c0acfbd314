"""`skyreels checkpoints`: toy weights, downloads, waiting for downloads, and checks of released ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cluster.registry import MODELS, Registry
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
    model: Annotated[str, typer.Option(help="Whose checkpoint, by any of its names.")] = "skyreels-v3-r2v",
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Writes a model's tiny checkpoint: the released files at toy size, random weights."""
    from components.tiny import WRITERS  # noqa: PLC0415 (torch is heavy; only this command needs it)

    WRITERS[Registry(MODELS.values()).find(model).task](folder, seed=seed)
    typer.echo(folder)


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="A downloaded release.")],
    base: Annotated[Path | None, typer.Option(help="With its text encoders and VAE, if they are elsewhere.")] = None,
) -> None:
    """Compares a release with its own configuration, key by key and shape by shape, without reading its weights."""
    from components.checkpoints.verify import verify as check  # noqa: PLC0415

    report = check(folder, base)
    typer.echo(f"{folder}: {report.layout}")
    for part in report.parts:
        found = part.problem or f"whole, {part.tensors} tensors, {part.parameters:,} parameters"
        typer.echo(f"  {part.name}: {found}")
    if not report.whole:
        raise typer.Exit(1)


@app.command("fetch")
def fetch_all(root: Root, items: Items) -> None:
    """Downloads what is not whole yet; a download that was cut off goes on."""
    from components import tiny  # noqa: PLC0415 (torch is heavy; only these commands need it)
    from components.checkpoints.download import Wanted, fetch  # noqa: PLC0415

    for wanted in map(Wanted.parse, items):
        if wanted.repository is not None:
            typer.echo(fetch(root, wanted))
        elif wanted.name in tiny.BY_NAME:
            tiny.BY_NAME[wanted.name](root / wanted.name)
            typer.echo(root / wanted.name)
        else:
            known = ", ".join(tiny.BY_NAME)
            raise CheckpointMismatch(f"{wanted.name} has no repository; toy weights are called {known}.")


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
