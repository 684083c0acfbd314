"""What the commands of the operator share: they open the job store of a configuration themselves, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cluster import config as configuration
from cluster.store import open_store
from cluster.store.base import JobStore

T = TypeVar("T")
Profile = Annotated[str, typer.Option(help="A shipped profile.")]
ConfigFile = Annotated[Path | None, typer.Option(envvar="SKYREELS_CONFIG", help="A YAML file instead.")]


def on_store(profile: str, config: Path | None, act: Callable[[JobStore], Awaitable[T]]) -> T:
    """Runs one action on the configured job store. ConfigError, Unavailable, and what the action raises."""
    settings = configuration.load(config) if config else configuration.profile(profile)

    async def run() -> T:
        async with _opened(settings.store_url) as store:
            return await act(store)

    return asyncio.run(run())


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[JobStore]:
    store = open_store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
