"""The one rank of a group of degree 1: on a thread of the replica's own process, without collectives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from cluster.config import Config
from cluster.pools import Pool
from deployments.group.commands import Command, Outcome
from deployments.group.member import WrongNumber
from deployments.group.rank import Rank
from deployments.group.ranks import GroupBroken

STOP_S = 2.0


class LocalRanks:
    """See `Ranks`. A thread cannot be ended: when it hangs, only a new process helps."""

    def __init__(self, config: Config, pool: Pool) -> None:
        self._config = config
        self._pool = pool
        self._thread: ThreadPoolExecutor | None = None
        self._rank: Rank | None = None
        self._work: asyncio.Future[Outcome] | None = None  # the newest command's

    @property
    def alive(self) -> bool:
        return True  # or the caller is not either

    async def start(self, on_death: Callable[[], None]) -> None:
        self._thread = ThreadPoolExecutor(1, "rank")
        loop = asyncio.get_running_loop()
        self._rank = await loop.run_in_executor(self._thread, Rank, self._config, self._pool, 0)

    async def call(self, number: int, command: Command) -> Sequence[Outcome]:
        if self._rank is None:
            raise GroupBroken("stopped", "the rank is not started")
        loop = asyncio.get_running_loop()
        self._work = loop.run_in_executor(self._thread, self._rank.execute, number, command)
        try:
            return [await asyncio.shield(self._work)]
        except WrongNumber as error:
            raise GroupBroken("protocol", str(error)) from error

    async def stop(self) -> None:
        if self._work is not None and not (await asyncio.wait({self._work}, timeout=STOP_S))[0]:
            raise GroupBroken("hang", "the rank's thread hangs; only a new process can replace it")
        if self._thread is not None and self._rank is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._rank.close)
            self._thread.shutdown(wait=False)
        self._rank = self._thread = self._work = None
