"""PostgreSQL as the job store of many hosts.

- Writes are READ COMMITTED and lock the job rows they change, in the order of their ids; the clock is read again once
  the locks are held. Readings are REPEATABLE READ, so that each is one consistent state.
- An outage ends every transaction within `timeout_s`: the server ends what runs too long and who sits idle in a
  transaction, the client ends what the server does not answer. A connection that the server has closed is replaced
  before it is used, so a restart costs no more than the transactions that were open.
- The URL takes libpq's parameters (`sslmode`, `sslrootcert`, `target_session_attrs` …); what it leaves out comes from
  libpq's environment (`PGPASSWORD`, `PGPASSFILE`, `PGUSER` …), which keeps the password out of the configuration.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import URL, Executable, Table, event, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from cluster.errors import ConfigError, Unavailable
from cluster.store import postgres_news
from cluster.store.news import Hub, News
from cluster.store.schema import Utc

TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 3.0
OPEN_TIMEOUT_S = 60.0
_CONNECTIONS = 8  # of one process at most; made when they are needed, the last used first
_MIGRATION = 0x5C1FEE15  # the advisory lock's key
# SQLSTATE classes and codes of a server that cannot serve now; what was begun has been rolled back.
_CLOCK = select(func.clock_timestamp(type_=Utc))
_PASSING_CLASSES = ("08", "40", "53", "57", "58")  # connection, rollback, resources, operator, system
_PASSING = frozenset({"25006", "25P03", "55P03"})  # a standby; idle too long; a lock that did not come free
_REFUSED_CLASSES = ("28", "3D", "3F", "42")  # credentials, database, schema, privileges
_TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")  # parameters of a URL that name files


class Postgres:
    """The dialect of one database on a server. No transaction lasts longer than `timeout_s`."""

    concurrent_writers = True

    def __init__(self, url: URL, *, timeout_s: float = TIMEOUT_S) -> None:
        if not url.database:
            raise ConfigError("store.url: PostgreSQL must name a database, as in postgresql+asyncpg://user@host/jobs.")
        self._url = url
        self._timeout_s = timeout_s
        self._origin = uuid.uuid4().hex

    async def now(self, connection: AsyncConnection) -> datetime:
        return (await connection.execute(_CLOCK)).scalar_one()

    def engine(self) -> AsyncEngine:
        engine = create_async_engine(
            URL.create("postgresql+asyncpg"),
            async_creator=self._connect,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=self._timeout_s,
            pool_use_lifo=True,
            hide_parameters=True,  # prompts belong in no log
        )
        event.listen(engine.sync_engine, "checkout", _on_checkout)
        return engine

    @asynccontextmanager
    async def opening(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        _check_files(self._url)
        try:
            async with engine.begin() as connection:
                await connection.execute(text("SET LOCAL statement_timeout = 0"))
                encoding = (await connection.execute(text("SHOW server_encoding"))).scalar_one()
                if encoding != "UTF8":
                    raise ConfigError(f"store.url: the database is encoded in {encoding}; create it with UTF8.")
                try:
                    async with asyncio.timeout(OPEN_TIMEOUT_S):
                        await connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION)))
                except TimeoutError as error:
                    message = "Another process is still migrating the job store; try again."
                    raise Unavailable(message, retry_after_s=OPEN_TIMEOUT_S) from error
                yield connection
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or str(error.reason)
            raise ConfigError(f"store.url: the server's TLS is not accepted: {reason.rstrip('.')}.") from error
        except DBAPIError as error:
            state = _state(error)
            if state is None and not self.passing(error):  # the driver's own refusal of a parameter
                raise ConfigError("store.url: the URL's parameters are not understood by the driver.") from error
            if state is not None and state.startswith(_REFUSED_CLASSES):
                raise ConfigError(
                    f"store.url: the server refuses with {_reason(error)}; the user must be able to log in and to "
                    "create tables in the database."
                ) from error
            raise

    @asynccontextmanager
    async def reading(self, engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
        whole = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        async with asyncio.timeout(self._timeout_s), whole.begin() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self, engine: AsyncEngine, *, durable: bool = True) -> AsyncGenerator[AsyncConnection]:
        # Every commit is durable: this server may lose what it has not written while the workers live on.
        async with asyncio.timeout(self._timeout_s), engine.begin() as connection:
            yield connection

    async def announce(self, connection: AsyncConnection, news: News) -> None:
        await postgres_news.announce(connection, self._origin, news)

    async def listen(self, hub: Hub) -> None:
        await postgres_news.listen(self._connect, self._origin, hub)

    def insert_new(self, table: Table, values: Mapping[str, object]) -> Executable:
        return insert(table).values(values).on_conflict_do_nothing()

    def passing(self, error: BaseException) -> bool:
        if not isinstance(error, DBAPIError):
            return isinstance(error, OSError)
        state = _state(error)
        if state is None:
            return error.connection_invalidated
        return state.startswith(_PASSING_CLASSES) or state in _PASSING

    async def _connect(self) -> Any:
        url, limit_ms = self._url, str(int(self._timeout_s * 1000))
        where = URL.create("postgresql", host=url.host, port=url.port, database=url.database, query=url.query)
        connection = await asyncpg.connect(
            where.render_as_string(),
            user=url.username,
            password=url.password,
            timeout=CONNECT_TIMEOUT_S,
            server_settings={
                "application_name": "skyreels",
                "jit": "off",  # no statement here is long enough to gain from it
                "statement_timeout": limit_ms,
                "idle_in_transaction_session_timeout": limit_ms,
            },
        )
        # PostgreSQL has no NUL in texts. A key with one is unknown, not an error.
        for kind in ("text", "varchar"):
            await connection.set_type_codec(
                kind, schema="pg_catalog", encoder=lambda value: value.replace("\0", "\ufffd"), decoder=str
            )
        return connection


def _check_files(url: URL) -> None:
    """A file of TLS that is missing is no outage, and one without certificates not the server's fault. ConfigError."""
    for name in _TLS_FILES:
        path = url.query.get(name)
        if not isinstance(path, str):
            continue
        if not os.access(path, os.R_OK):
            raise ConfigError(f"store.url: {name} cannot be read: {path}.")
        if name == "sslrootcert":
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            except OSError as error:
                raise ConfigError(f"store.url: {name} holds no certificate: {path}.") from error


def _on_checkout(connection: Any, _record: object, _proxy: object) -> None:
    if connection.driver_connection.is_closed():
        raise DisconnectionError  # the pool makes a new one


def _state(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _reason(error: DBAPIError) -> str:
    """The server's own sentence: it names users and databases, never passwords."""
    cause = error.orig.__cause__ if error.orig is not None else None
    return f"{_state(error)} ({cause})"
