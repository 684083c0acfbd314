"""Transactions on the job store's database: the one place where connections, the clock and outages are handled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cluster.errors import Unavailable
from cluster.store.dialect import Dialect
from cluster.store.migrate import migrate
from cluster.store.news import POLL_S, Hub, Topic, Watch
from cluster.store.observer import Kind, Moment, Observer, Unobserved

RETRY_AFTER_S = 2.0


@dataclass(slots=True)
class Transaction:
    """An open transaction and the database's clock, read at its beginning (for writes: after the wait for its turn)."""

    conn: AsyncConnection
    now: datetime
    _dialect: Dialect
    news: dict[Topic, set[str]] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)  # told to the observer after the commit

    async def locked(self) -> None:
        """Rows have been waited for: what others committed meanwhile lies before `now` again."""
        if self._dialect.concurrent_writers:
            self.now = await self._dialect.now(self.conn)

    def tell(self, topic: Topic, key: str | None = None) -> None:
        """The commit is news of this topic. Use a key for all news of a topic or for none."""
        self.news.setdefault(topic, set()).update(() if key is None else (key,))

    async def insert_new(self, table: Table, values: Mapping[str, object]) -> None:
        """Inserts unless the key exists."""
        await self.conn.execute(self._dialect.insert_new(table, values))


class Database:
    """One database, open or not. Every method raises Unavailable while it cannot be reached."""

    def __init__(self, dialect: Dialect, observer: Observer | None = None) -> None:
        self._dialect = dialect
        self._observer = observer or Unobserved()
        self._engine: AsyncEngine | None = None
        self._hub = Hub()
        self._listener: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects and migrates. ConfigError."""
        if self._engine is not None:
            return
        engine = self._dialect.engine()
        try:
            with self._outages():
                async with self._dialect.opening(engine) as connection:
                    await connection.run_sync(migrate)
        except BaseException:
            await engine.dispose()
            raise
        self._engine = engine

    async def close(self) -> None:
        """Releases every connection."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[Transaction]:
        """A consistent reading."""
        with self._timed("read"), self._outages():
            async with self._dialect.reading(self._opened()) as connection:
                yield await self._begun(connection)

    @asynccontextmanager
    async def write(self, *, durable: bool = True) -> AsyncGenerator[Transaction]:
        """A write transaction: committed at the end, rolled back on an error. What only workers of this moment need
        to know is not `durable`: a power cut that takes it takes them too.
        """
        with self._timed("write" if durable else "light_write"), self._outages():
            async with self._dialect.writing(self._opened(), durable=durable) as connection:
                tx = await self._begun(connection)
                yield tx
                if tx.news:
                    await self._dialect.announce(connection, tx.news)
        self._hub.tell(tx.news)
        if tx.moments:
            self._observer.committed(tx.moments)

    def watch(self, topic: Topic, *, key: str | None = None, poll_s: float = POLL_S) -> Watch:
        """News from now on; the first watch begins to listen to other processes."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._dialect.listen(self._hub))
        return self._hub.watch(topic, key, poll_s)

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise Unavailable("The job store is not open; try again.", retry_after_s=RETRY_AFTER_S)
        return self._engine

    async def _begun(self, connection: AsyncConnection) -> Transaction:
        return Transaction(connection, await self._dialect.now(connection), self._dialect)

    @contextmanager
    def _timed(self, kind: Kind) -> Generator[None]:
        began = time.perf_counter()
        answered = True
        try:
            yield
        except Unavailable:
            answered = False
            raise
        finally:
            self._observer.asked(kind, time.perf_counter() - began, answered=answered)

    @contextmanager
    def _outages(self) -> Generator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeout, OSError) as error:
            if isinstance(error, PoolTimeout) or self._dialect.passing(error):
                message = "The job store cannot be used now (unreachable, locked or out of space); try again."
                raise Unavailable(message, retry_after_s=RETRY_AFTER_S) from error
            raise
