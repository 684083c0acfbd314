from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from cluster.store import open_store
from cluster.store.base import JobStore
from cluster.store.database import Database
from cluster.store.schema import METADATA, leaders
from cluster.store.sql import database_at
from tests.postgres import Databases
from tests.unit.cluster.store.play import Play


@pytest.fixture(scope="session")
def migrated(postgres: Databases) -> Iterator[str]:
    """A PostgreSQL database with the schema and nothing else."""
    url = postgres.new()

    async def migrate() -> None:
        database = database_at(url)
        await database.open()
        await database.close()

    asyncio.run(migrate())
    yield url
    postgres.drop(url)


@pytest.fixture
def store_url(postgres: Databases, migrated: str) -> Iterator[str]:
    """An empty database on PostgreSQL, emptied again afterwards; tests of another backend give their own."""
    yield migrated
    emptied = [f"DELETE FROM {table.name}" for table in reversed(METADATA.sorted_tables) if table is not leaders]
    rest = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    alone = f"{rest} AND pid <> pg_backend_pid()"
    postgres.sql("; ".join([alone, *emptied, "UPDATE leaders SET owner = NULL, until = NULL"]), migrated)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[JobStore]:
    """An open store."""
    store = open_store(store_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def play(store: JobStore) -> Play:
    leadership = await store.lead("s1", 600.0)
    assert leadership is not None
    return Play(store, leadership)


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    """The database below the store, open."""
    database = database_at(store_url)
    await database.open()
    yield database
    await database.close()
