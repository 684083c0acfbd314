"""`skyreels keys` and `skyreels usage` on a store of their own."""

from __future__ import annotations

import asyncio
from datetime import UTC
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cluster import config as configuration
from cluster.errors import InvalidRequest, NotFound
from cluster.export import ATTEMPTS, CHARGES
from cluster.store import open_store
from cluster.store import usage as ledger
from cluster.tenancy import ApiKey, digest
from deployments.cli.main import app
from tests.unit.cluster.store.play import Play
from tests.unit.deployments.api.conftest import PROFILE

RUN = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(PROFILE.format(state=tmp_path / "state", allow=[]))
    return path


def run(config: Path, *arguments: str) -> str:
    result = RUN.invoke(app, [*arguments, "--config", str(config)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def stored(config: Path) -> list[ApiKey]:
    async def read() -> list[ApiKey]:
        store = open_store(configuration.load(config).store_url)
        await store.open()
        found = list(await store.list_keys())
        await store.close()
        return found

    return asyncio.run(read())


def test_a_secret_is_printed_once_and_kept_as_a_hash(config: Path) -> None:
    secret = run(config, "keys", "create", "--tenant", "acme", "--name", "ci").strip()
    (key,) = stored(config)
    assert secret.startswith("sk-")
    assert len(secret) > 40
    assert (key.tenant_id, key.name, key.admin, key.sha256) == ("acme", "ci", False, digest(secret))
    listed = run(config, "keys", "list", "--tenant", "acme")
    assert secret not in listed
    assert "acme" in listed
    state = configuration.load(config).state_path
    assert not any(secret.encode() in path.read_bytes() for path in state.rglob("*") if path.is_file())


def test_a_key_is_revoked_by_its_id(config: Path) -> None:
    run(config, "keys", "create", "--tenant", "ops", "--admin")
    (key,) = stored(config)
    assert key.admin
    run(config, "keys", "revoke", key.id)
    assert stored(config)[0].revoked_at is not None
    with pytest.raises(NotFound, match="key_none"):
        run(config, "keys", "revoke", "key_none")


def test_names_are_plain(config: Path) -> None:
    with pytest.raises(InvalidRequest, match="--tenant"):
        run(config, "keys", "create", "--tenant", "a b")


def test_the_ledger_is_exported_as_parquet(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_PAGE", 2)  # several pages

    async def fill() -> None:
        store = open_store(configuration.load(config).store_url)
        await store.open()
        leadership = await store.lead("s", 600)
        assert leadership is not None
        play = Play(store, leadership)
        for job_id in ("a", "b", "c"):
            await play.create(job_id, price_usd=Decimal("0.04"))
            await play.published(job_id)
        await store.close()

    asyncio.run(fill())
    out = tmp_path / "usage.parquet"
    run(config, "usage", "export", "--out", str(out))
    attempts, charges = pq.read_table(out), pq.read_table(tmp_path / "usage.charges.parquet")
    assert (attempts.schema, charges.schema) == (ATTEMPTS, CHARGES)
    rows = attempts.to_pylist()
    assert [(row["job_id"], row["stage"]) for row in rows] == [
        (job_id, stage) for job_id in ("a", "b", "c") for stage in ("text", "condition", "denoise", "decode")
    ]
    assert {(row["outcome"], row["state"], row["resolution"]) for row in rows} == {("done", "done", "64P")}
    assert [(row["job_id"], row["usd"]) for row in charges.to_pylist()] == [(j, Decimal("0.040000")) for j in "abc"]
    last = max(row["ended_at"] for row in rows).astimezone(UTC)
    run(config, "usage", "export", "--out", str(out), "--since", f"{last.year + 1}-01-01")
    assert pq.read_table(out).num_rows == 0
