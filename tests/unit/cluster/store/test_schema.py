from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.dialects import sqlite

from cluster.errors import ConfigError
from cluster.store.database import Database
from cluster.store.migrate import migrate
from cluster.store.schema import METADATA, Utc
from cluster.store.sqlite import Sqlite


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"


def _statements(connection: Connection) -> dict[str, str]:
    """Every table's and index's own text, blanks aside: partial indexes and options are only compared so."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    skip = ("alembic_version", "sqlite_sequence")
    return {name: re.sub(r"\s+|\"", "", text) for name, text in rows if name not in skip}


async def test_the_migrated_schema_is_the_declared_one(database: Database) -> None:
    fresh = create_engine("sqlite://")
    with fresh.begin() as connection:
        METADATA.create_all(connection)
        declared = _statements(connection)
    fresh.dispose()
    async with database.write() as tx:

        def differences(connection: Connection) -> list[object]:
            return list(compare_metadata(MigrationContext.configure(connection), METADATA))

        assert await tx.conn.run_sync(differences) == []
        assert await tx.conn.run_sync(_statements) == declared


async def test_migrating_again_changes_nothing(database: Database) -> None:
    async with database.write() as tx:
        before = await tx.conn.run_sync(_statements)
        await tx.conn.run_sync(migrate)
        assert await tx.conn.run_sync(_statements) == before


@pytest.mark.parametrize("revision", ["0001", "0002", "9999"])
async def test_another_schema_is_refused_and_left_alone(tmp_path: Path, revision: str) -> None:
    """Of a draft from before the first release, or of a newer version."""
    path = tmp_path / "jobs.db"
    with sqlite3.connect(path) as direct:
        direct.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        direct.execute(f"INSERT INTO alembic_version VALUES ('{revision}')")
    direct.close()
    with pytest.raises(ConfigError, match=f"'{revision}'"):
        await Database(Sqlite(make_url(f"sqlite+aiosqlite:///{path}"))).open()
    with sqlite3.connect(path) as direct:
        assert direct.execute("SELECT name FROM sqlite_master").fetchall() == [("alembic_version",)]
    direct.close()


async def test_the_clock_is_utc(database: Database) -> None:
    async with database.read() as tx:
        assert abs(tx.now - datetime.now(UTC)) < timedelta(minutes=1)
        assert tx.now.tzinfo is UTC


def test_moments_are_kept_in_utc() -> None:
    moment = Utc()
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert moment.process_bind_param(east, sqlite.dialect()) == datetime(2026, 1, 1, tzinfo=UTC)
    assert moment.process_result_value(datetime(2026, 1, 1), sqlite.dialect()) == datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="time zone"):
        moment.process_bind_param(datetime(2026, 1, 1), sqlite.dialect())
