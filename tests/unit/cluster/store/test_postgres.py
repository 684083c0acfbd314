from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from cluster.errors import ConfigError, Unavailable
from cluster.store import open_store
from cluster.store.database import Database
from cluster.store.schema import METADATA
from tests.postgres import PASSWORD, Databases
from tests.unit.cluster.store.contract import ProcessContract, RecordContract


@pytest.fixture
def empty_url(postgres: Databases) -> Iterator[str]:
    url = postgres.new()
    yield url
    postgres.drop(url)


class TestPostgresKeepsTheContract(RecordContract):
    pass


class TestPostgresOfSeveralProcesses(ProcessContract):
    @pytest.fixture
    def store_url(self, empty_url: str) -> str:
        return empty_url


async def test_the_migrated_schema_is_the_declared_one(database: Database, postgres: Databases, empty_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), METADATA))

    query = text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    async with database.write() as tx:
        assert await tx.conn.run_sync(differences) == []
        migrated = {tuple(row) for row in await tx.conn.execute(query) if row.indexname != "alembic_version_pkc"}
    engine = create_async_engine(empty_url)
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
        assert {tuple(row) for row in await connection.execute(query)} == migrated
    await engine.dispose()


async def test_the_clock_is_utc_and_moves_inside_a_transaction(database: Database) -> None:
    async with database.write() as tx:
        began = tx.now
        assert abs(began - datetime.now(UTC)) < timedelta(minutes=1)
        assert began.utcoffset() == timedelta(0)
        await tx.locked()
        assert tx.now > began


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"username": "nobody-here"}, "password authentication failed"),
        ({"database": "nowhere"}, "does not exist"),
        ({"query": {"sslmode": "sideways"}}, "parameters"),
        ({"query": {"no_such_setting": "1"}}, "no_such_setting"),
    ],
)
async def test_what_the_server_refuses_is_a_sentence_without_the_password(
    store_url: str, change: dict[str, str], complaint: str
) -> None:
    url = make_url(store_url).set(**change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^store\.url: ") as caught:
        await open_store(url.render_as_string(hide_password=False)).open()
    assert complaint in caught.value.message
    assert PASSWORD not in "".join(map(str, _chain(caught.value)))


async def test_a_user_without_rights_is_told(postgres: Databases, empty_url: str) -> None:
    name = make_url(empty_url).database
    await asyncio.to_thread(postgres.sql, f"CREATE ROLE guest_{name} LOGIN PASSWORD 'x'")
    url = make_url(empty_url).set(username=f"guest_{name}", password="x")
    with pytest.raises(ConfigError, match="permission denied"):
        await open_store(url.render_as_string(hide_password=False)).open()
    await asyncio.to_thread(postgres.sql, f"DROP ROLE guest_{name}")


async def test_another_encoding_is_refused(postgres: Databases, empty_url: str) -> None:
    name = f"{make_url(empty_url).database}_ascii"
    await asyncio.to_thread(postgres.sql, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII'")
    url = make_url(empty_url).set(database=name).render_as_string(hide_password=False)
    with pytest.raises(ConfigError, match="SQL_ASCII"):
        await open_store(url).open()
    await asyncio.to_thread(postgres.drop, url)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_no_server_is_unavailable(host: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await open_store(f"postgresql+asyncpg://u:{PASSWORD[:6]}@{host}:1/db").open()
    assert PASSWORD[:6] not in "".join(map(str, _chain(caught.value)))


async def test_the_password_may_come_from_the_environment(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(store_url)
    assert url.password is not None
    monkeypatch.setenv("PGPASSWORD", str(url.password))
    store = open_store(url._replace(password=None).render_as_string())
    await store.open()
    await store.close()


def test_a_url_that_cannot_be_parsed_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("postgresql+asyncpg://u:hidden@h:port/db")
    assert "hidden" not in "".join(map(str, _chain(caught.value)))


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__ or error.__context__)]
