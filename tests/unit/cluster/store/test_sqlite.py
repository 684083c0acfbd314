from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, insert, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from cluster.errors import ConfigError, Unavailable
from cluster.records import Beat
from cluster.store import mounts, open_store
from cluster.store.base import JobStore
from cluster.store.database import Database
from cluster.store.schema import tenants
from cluster.store.sql import SqlJobStore
from cluster.store.sqlite import Sqlite
from tests.unit.cluster.makers import REQUEST, handle, request
from tests.unit.cluster.store.contract import Contract
from tests.unit.cluster.store.play import LEASE_S, R2V, TENANT, Play, outputs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "jobs.db"


@pytest.fixture
def store_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


class TestSqliteKeepsTheContract(Contract):
    @pytest.fixture(autouse=True)
    async def intact(self, store: JobStore, path: Path) -> AsyncIterator[None]:
        yield
        with sqlite3.connect(path) as direct:
            assert direct.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        direct.close()


async def test_every_connection_is_durable_and_checked(database: Database) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            tx = await stack.enter_async_context(database.read())
            for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
                assert (await tx.conn.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one() == value


async def test_writes_begin_immediate_and_reads_do_not(database: Database, path: Path) -> None:
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    async with database.write():
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    async with database.read():
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("durable", [True, False])
async def test_only_a_durable_write_waits_for_the_disk(database: Database, path: Path, *, durable: bool) -> None:
    """On a connection that just wrote the other way; a light write is seen by other processes as soon as it ends."""
    for mode in (not durable, durable):
        async with database.write(durable=mode) as tx:
            sync = (await tx.conn.exec_driver_sql("PRAGMA synchronous")).scalar_one()
            pages = (await tx.conn.exec_driver_sql("PRAGMA wal_autocheckpoint")).scalar_one()
            await tx.conn.execute(insert(tenants).values(id=f"durable-{mode}", created_at=tx.now))
    assert (sync, pages) == ((2, 1000) if durable else (1, 0))
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM tenants").fetchone() == (2,)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_write_waits_for_another_process(database: Database, path: Path, *, durable: bool) -> None:
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def write() -> None:
        async with database.write(durable=durable):
            pass

    waiting = asyncio.create_task(write())
    async with database.read():  # meanwhile this process goes on
        assert not waiting.done()
    other.execute("ROLLBACK")
    other.close()
    await waiting


async def test_locked_out_is_unavailable_and_passes(path: Path, store: JobStore) -> None:
    impatient = SqlJobStore(Database(Sqlite(make_url(f"sqlite+aiosqlite:///{path}"), busy_timeout_s=0.01)))
    await impatient.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught:
        await impatient.create_job("j1", TENANT, REQUEST, R2V)
    assert caught.value.retry_after_s > 0
    assert not (await impatient.list_jobs(TENANT)).jobs  # readers never wait
    other.execute("ROLLBACK")
    other.close()
    await impatient.create_job("j1", TENANT, REQUEST, R2V)
    await impatient.close()


class SmallDisk(Sqlite):
    """A database file that may not grow beyond `pages`."""

    pages = 2**30

    def engine(self) -> AsyncEngine:
        engine = super().engine()
        event.listen(engine.sync_engine, "begin", self._limit)
        return engine

    def _limit(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {self.pages}")


async def test_a_full_disk_is_unavailable_and_passes(store_url: str) -> None:
    disk = SmallDisk(make_url(store_url))
    store = SqlJobStore(Database(disk))
    await store.open()
    leadership = await store.lead("s1", 600.0)
    assert leadership is not None
    play = Play(store, leadership)
    await play.create("j1")
    call = (await play.take("text")).call
    before = await play.everything()
    disk.pages = 1  # SQLite takes it as "not one page more than now"
    with pytest.raises(Unavailable):
        for index in range(100):
            await play.create(f"more{index}", request(prompt="x" * 5000))
    with pytest.raises(Unavailable):
        await store.save_snapshot(call, handle("x" * 50_000), 1)
    assert await play.everything() == before
    assert await store.heartbeat("w1", [Beat(call)], LEASE_S)  # what needs no room still works
    disk.pages = 2**30
    await store.complete(call, outputs("text"))
    await play.create("later")
    await store.close()


async def test_a_store_that_is_not_open_is_unavailable(store_url: str) -> None:
    with pytest.raises(Unavailable):
        await open_store(store_url).now()


async def test_a_network_file_system_is_refused(store_url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.store.sqlite.network_mount", lambda _: mounts.Mount("/mnt/share", "nfs4"))
    with pytest.raises(ConfigError, match="PostgreSQL"):
        await open_store(store_url).open()
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///file:x?uri=true",
        "sqlite:///x.db",
        "mysql://h/x",
        "postgresql://h/x",
        "postgresql+asyncpg://h",
        "not a url",
    ],
)
def test_a_url_that_cannot_hold_jobs_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^store\.url: "):
        open_store(url)


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        await open_store(f"sqlite+aiosqlite:///{tmp_path}/file/jobs.db").open()
