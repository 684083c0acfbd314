"""What a database brand must provide beside SQLAlchemy Core. Everything else of the store is the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from sqlalchemy import Executable, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cluster.store.news import Hub, News


class Dialect(Protocol):
    """One database brand, at one URL."""

    @property
    def concurrent_writers(self) -> bool:
        """Whether write transactions run beside each other and wait for rows, instead of one after the other."""

    async def now(self, connection: AsyncConnection) -> datetime:
        """The database's clock at this moment, not at the transaction's start."""

    def engine(self) -> AsyncEngine:
        """A new engine with its connection hooks."""

    def opening(self, engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        """The write transaction in which a process migrates the schema: one at a time. ConfigError, Unavailable."""

    def reading(self, engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that sees one consistent state."""

    def writing(self, engine: AsyncEngine, *, durable: bool = True) -> AbstractAsyncContextManager[AsyncConnection]:
        """A write transaction: committed at the end, rolled back on an error. One that is not durable need not be on
        the disk when it ends: a power cut may take it, nothing else.
        """

    async def announce(self, connection: AsyncConnection, news: News) -> None:
        """Inside a write transaction: has its commit heard by other processes, if the brand can."""

    async def listen(self, hub: Hub) -> None:
        """Tells the hub of other processes' commits until cancelled; returns at once if the brand cannot."""

    def insert_new(self, table: Table, values: Mapping[str, object]) -> Executable:
        """An INSERT that leaves an existing row alone."""

    def passing(self, error: BaseException) -> bool:
        """Whether the error says that the database cannot serve now; else the statement was wrong."""
