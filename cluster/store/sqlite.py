"""SQLite as the job store of one host.

- WAL, so that readers never wait for the writer; `synchronous=FULL`, so that a durable commit survives a power cut.
- The driver's own transaction handling is off: it would begin deferred and late, and a deferred transaction that
  turns into a writer fails at once when another one has written meanwhile. Every transaction begins by the hook below:
  IMMEDIATE when it writes (waiting its turn by `busy_timeout`), deferred when it reads (one consistent snapshot).
- Writers of one process queue on a lock, so that they do not poll the file against each other.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL, Connection, Executable, Table, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from cluster.errors import ConfigError, Unavailable
from cluster.store.mounts import network_mount
from cluster.store.news import Hub, News
from cluster.store.sqlite_driver import BEGIN_LIGHT_WRITE, BEGIN_READ, BEGIN_WRITE, connect

BUSY_TIMEOUT_S = 10.0
OPEN_TIMEOUT_S = 60.0
_OPEN_POLL_S = 0.02
_CONNECTIONS = 4  # each has a thread; one writes, the others read
_BEGIN = "skyreels_begin"
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)


class Sqlite:
    """The dialect of one database file. A write waits `busy_timeout_s` for other processes' before it gives up."""

    concurrent_writers = False

    def __init__(self, url: URL, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        name = url.database or ""
        if not name or name == ":memory:" or name.startswith("file:"):
            raise ConfigError(
                "store.url: SQLite must name a file, as in sqlite+aiosqlite:////var/lib/skyreels/jobs.db."
            )
        self._url = url
        self._path = Path(name).absolute()
        self._busy_timeout_s = busy_timeout_s
        self._turn = asyncio.Lock()

    async def now(self, connection: AsyncConnection) -> datetime:
        """This machine's clock: SQLite has no other, and asking it would cost a statement in every transaction."""
        return datetime.now(UTC)

    def engine(self) -> AsyncEngine:
        engine = create_async_engine(
            self._url.set(database=str(self._path)),
            async_creator=lambda: connect(self._path, self._busy_timeout_s),
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
        )
        event.listen(engine.sync_engine, "connect", _on_connect)
        event.listen(engine.sync_engine, "begin", _on_begin)
        return engine

    @asynccontextmanager
    async def opening(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        self._refuse_network()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._path.with_name(self._path.name + ".lock").open("ab")
        except OSError as error:
            raise ConfigError(f"store.url: {self._path.parent} cannot be written: {error.strerror}.") from error
        with lock:  # closing the file, or dying, releases the lock
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    while not _locked(lock.fileno()):
                        await asyncio.sleep(_OPEN_POLL_S)
            except TimeoutError as error:
                message = f"Another process is still migrating {self._path}; try again."
                raise Unavailable(message, retry_after_s=OPEN_TIMEOUT_S) from error
            async with self.writing(engine) as connection:
                yield connection

    @asynccontextmanager
    async def reading(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        async with engine.connect() as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def writing(self, engine: AsyncEngine, *, durable: bool = True) -> AsyncGenerator[AsyncConnection]:
        begin = BEGIN_WRITE if durable else BEGIN_LIGHT_WRITE
        async with self._turn, engine.execution_options(**{_BEGIN: begin}).begin() as connection:
            yield connection

    async def announce(self, connection: AsyncConnection, news: News) -> None:
        """A file carries no word to other processes; they poll."""

    async def listen(self, hub: Hub) -> None:
        """See `announce`."""

    def insert_new(self, table: Table, values: Mapping[str, object]) -> Executable:
        return insert(table).values(values).on_conflict_do_nothing()

    def passing(self, error: BaseException) -> bool:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code: int = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK)
        return code & 0xFF in _PASSING  # the low byte is the kind, the rest its detail

    def _refuse_network(self) -> None:
        mount = network_mount(self._path)
        if mount is not None:
            raise ConfigError(
                f"store.url: {self._path} lies on a network file system ({mount.kind} at {mount.point}), where SQLite "
                "loses data; name a local disk, or use PostgreSQL."
            )


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _on_connect(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    # The first connection of a process is made under the opening lock: two at once could not both switch to WAL.
    cursor.execute("PRAGMA journal_mode = WAL")
    mode = cursor.fetchone()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
    if mode is None or mode[0] != "wal":
        raise ConfigError(f"store.url: the file system cannot hold SQLite's write-ahead log (got {mode}); use another.")


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, BEGIN_READ))
