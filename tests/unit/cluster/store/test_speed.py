"""What keeps the store quick: every poll and listing runs along an index, whatever the history holds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from cluster.deliveries import Outcome, ParcelState
from cluster.records import Beat, Delivery, JobState, StageCall, StageRef, encode
from cluster.store.database import Database
from cluster.store.sql import SqlJobStore
from cluster.store.sqlite import Sqlite
from cluster.tenancy import Limits, Once, TenantLimits
from tests.unit.cluster.makers import ARTIFACT, REQUEST
from tests.unit.cluster.store.play import LEASE_S, R2V, TENANT, Play, outputs

ROWS = 10_000
GROWING = frozenset({"jobs", "stages", "events", "tenants", "keys", "idempotency", "usage", "tenant_hours", "charges"})


@dataclass
class Spy(Sqlite):
    """Records the statements of the store."""

    url: Any = None
    seen: list[tuple[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.url)

    def engine(self) -> AsyncEngine:
        engine = super().engine()
        event.listen(engine.sync_engine, "before_cursor_execute", self._record)
        return engine

    def _record(self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            self.seen.append((statement, parameters[0] if many else parameters))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def spy(path: Path) -> AsyncIterator[tuple[Spy, Play]]:
    spy = Spy(make_url(f"sqlite+aiosqlite:///{path}"))
    store = SqlJobStore(Database(spy))
    await store.open()
    leadership = await store.lead("s1", 600.0)
    assert leadership is not None
    _fill(path)
    yield spy, Play(store, leadership)
    await store.close()


def _fill(path: Path) -> None:
    """A history of finished and failed jobs, written behind the store's back."""
    request, artifact = json.dumps(encode(REQUEST)), json.dumps(encode(ARTIFACT))
    at = "2026-01-01 00:00:00.000000"
    with sqlite3.connect(path) as direct:
        direct.execute("INSERT INTO tenants VALUES (?, ?)", (TENANT, at))
        direct.executemany(
            "INSERT INTO jobs (id, tenant_id, model, graph, request, state, phase, progress, created_at, finished_at,"
            " last_seq, swept, n, told_percent) VALUES (?, ?, 'm', 'r2v', ?, ?, ?, 1.0, ?, ?, 0, 2, 1, 99)",
            (
                (f"old{index}", TENANT, request, state, state, at, at)
                for index in range(ROWS)
                for state in ("failed" if index % 10 == 0 else "done",)
            ),
        )
        direct.executemany(
            "INSERT INTO results VALUES (?, 0, 7, ?, ?)", ((f"old{index}", artifact, at) for index in range(ROWS))
        )
        direct.executemany(
            "INSERT INTO stages (job_id, tenant_id, stage, result, chunk, position, weight, final, inputs, job_number,"
            " rank, due_at, state, epoch, attempt, losses, failures, step, steps, snapshot_step)"
            " VALUES (?, 'acme', ?, 0, 0, ?, 0.25, 0, '{}', ?, 0, '9999-12-31 00:00:00.000000',"
            " 'done', 1, 1, 0, 0, 0, 0, 0)",
            (
                (f"old{index}", stage, position, index + 1)
                for index in range(ROWS)
                for position, stage in enumerate(("text", "condition", "denoise", "decode"))
            ),
        )
        direct.executemany(
            "INSERT INTO deliveries (id, job_id, tenant_id, seq, kind, url, host, state, epoch, attempts, next_at,"
            " created_at, settled_at) VALUES (?, ?, ?, 9, 'webhook', 'http://a/', 'a:80', 'delivered', 1, 1, ?, ?, ?)",
            ((f"d{index}", f"old{index}", TENANT, at, at, "9999-01-01 00:00:00.000000") for index in range(ROWS)),
        )
    direct.close()


@contextmanager
def _no_scan(spy: Spy, path: Path) -> Iterator[None]:
    """Fails when a statement inside walks a whole table, a whole index, or sorts what an index should have sorted."""
    spy.seen.clear()
    yield
    direct = sqlite3.connect(path)
    plans = [
        (row[3], statement)
        for statement, parameters in spy.seen
        for row in direct.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    ]
    direct.close()
    assert plans
    growing = [(plan, statement) for plan, statement in plans if plan.startswith("SCAN") and _grows(plan, statement)]
    assert not growing


def _grows(plan: str, statement: str) -> bool:
    """Workers and leaders are a handful; a partial index on living stages holds no history, but maybe a flood."""
    table = plan.split()[1]
    living = "INDEX ix_stages_held" in plan
    living |= "INDEX ix_stages_urgent" in plan and "LIMIT" in statement
    return table in {"jobs", "stages", "events", "tenants", "results", "deliveries"} and not living


async def test_reading_never_scans_the_history(spy: tuple[Spy, Play], path: Path) -> None:
    seen, play = spy
    await play.create()
    with _no_scan(seen, path):
        await play.job()
        await play.log()
        await play.store.verdicts([StageCall(StageRef("j1", "text"), 1)])
    for states in ((), (JobState.RUNNING,), (JobState.RUNNING, JobState.FAILED)):
        for newest_first in (True, False):
            with _no_scan(seen, path):
                await play.store.list_jobs(TENANT, states=states, newest_first=newest_first, after="old500")
            assert not any("TEMP B-TREE" in plan for plan in _plans(seen, path))


def _plans(spy: Spy, path: Path) -> list[str]:
    direct = sqlite3.connect(path)
    found = [
        row[3]
        for statement, parameters in spy.seen
        if "LIMIT" in statement
        for row in direct.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    ]
    direct.close()
    return found


async def test_polling_never_scans_the_history(spy: tuple[Spy, Play], path: Path) -> None:
    seen, play = spy
    await play.create("a")
    await play.create("b")
    with _no_scan(seen, path):
        assert len((await play.store.state(worker_ttl_s=60)).ready) == 4
    assert not any("TEMP B-TREE" in plan for plan in _plans(seen, path))
    with _no_scan(seen, path):
        call = (await play.take("text", "a")).call
        await play.store.heartbeat("w1", [Beat(call, 1, 2)], LEASE_S)
        await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=2)
        await play.store.sweepable(keep_s=60)
        await play.store.cancel_job("a", TENANT)
        await play.store.delete_job("b", TENANT)
        await play.store.swept("b", results=True)


async def test_the_outbox_never_scans_the_history(spy: tuple[Spy, Play], path: Path) -> None:
    seen, play = spy
    for name in ("a", "b"):
        delivery = Delivery(webhook_url=f"http://{name}.example/", upload_url=f"http://{name}.example/file")
        await play.create(name, replace(REQUEST, delivery=delivery))
    with _no_scan(seen, path):
        await play.published("a")
        await play.published("b")
        (parcel, _) = await play.store.claim_parcels(limit=8, per_host=1, lease_s=60, room={"c.example:80": 0})
        await play.store.renew_parcels([parcel], 60)
        await play.store.settle_parcel(parcel, Outcome(ParcelState.DEAD))
        await play.store.resend_parcel(parcel.id, TENANT)
        await play.store.purge_parcels(60)
        await play.store.backlog()
        await play.store.feed({"a": 3, "b": 4})
        await play.store.delete_job("b", TENANT)
        await play.store.swept("a", results=True)
    with _no_scan(seen, path):
        await play.store.parcels(TENANT, states=[ParcelState.DELIVERED], after="d500")
    assert not any("TEMP B-TREE" in plan for plan in _plans(seen, path))


async def test_what_tenancy_asks_never_scans_the_history(spy: tuple[Spy, Play], path: Path) -> None:
    seen, play = spy
    limits = TenantLimits(queued=100, running=2, requests_per_minute=100, device_seconds_per_day=100)
    await play.store.create_key(TENANT, "ci", "aa" * 32)
    with _no_scan(seen, path):
        await play.create("a", once=Once("key", "print"), limits=limits)
        await play.store.replayed(TENANT, Once("key", "print"))
        await play.store.find_key("aa" * 32)
        await play.store.complete((await play.take("text", "a")).call, outputs("text"), busy_s=1.0)
        await play.store.usage(TENANT)
        assert [row async for page in play.store.usage_rows(tenant_id=TENANT) for row in page]


async def test_a_flood_is_not_walked_to_find_the_other_tenants(spy: tuple[Spy, Play], path: Path) -> None:
    seen, play = spy
    for tenant in ("flood", "flood", "flood", "small"):
        await play.store.create_job(f"{tenant}{len(seen.seen)}", tenant, REQUEST, R2V)
    with _no_scan(seen, path):
        state = await play.store.state(worker_ttl_s=60, ready_limit=1, limits=Limits(default=TenantLimits(running=1)))
    assert {item.tenant_id for item in state.ready} == {"flood", "small"}
    assert not any("TEMP B-TREE" in plan for plan in _plans(seen, path))
