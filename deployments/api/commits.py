"""Files first, then the row that names them. The row is the commit; here is what holds when its fate is not known.

Whoever is cut off in a commit cannot tell whether it happened. So a caller that leaves cuts nothing off, and files are
removed only when their row has surely been refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cluster.errors import Unavailable
from deployments.artifacts import ArtifactStore

T = TypeVar("T")


class Commits:
    """Work that is done to its end although whoever asked for it has left."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()  # the event loop alone would not keep them

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result, or its error."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)


@asynccontextmanager
async def removed_when_refused(artifacts: ArtifactStore, prefix: str) -> AsyncGenerator[None]:
    """Removes what lies under `prefix` when the block fails. Not after Unavailable, or when the process ends: the row
    may be there all the same, and if it is not, the sweep of orphans finds the files.
    """
    try:
        yield
    except (Unavailable, asyncio.CancelledError):
        raise
    except BaseException:
        await artifacts.delete_tree(prefix)
        raise
