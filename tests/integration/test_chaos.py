"""The chaos harness in short: a few jobs of three tenants while processes die, and a look into the store."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest.chaos.log import violations
from loadtest.chaos.receiver import Receiver
from loadtest.chaos.run import Options, run
from tests.integration.conftest import HASTE, laptop
from tests.integration.system import System

pytestmark = pytest.mark.integration
JOBS = 18
SEED = 28  # among so few jobs it has a cancel, a delete, hang-ups, repeats and trespasses


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def fragile(folder: Path, receiver: Receiver) -> Iterator[System]:
    delivery = {"lease_s": 2.0, "backoff_s": 0.2, "backoff_max_s": 1.0}
    media = {"allow_hosts": [receiver.host]}
    overrides = {**laptop(), **HASTE, "auth": "keys", "delivery": delivery, "media": media}
    system = System(folder / "fragile", overrides=overrides)
    try:
        yield system.start()
    finally:
        system.kill()  # quicker than a clean stop
        system.close()


def test_nothing_is_lost_or_doubled_while_processes_die(fragile: System, receiver: Receiver, tmp_path: Path) -> None:
    keys = tuple(fragile.create_key(tenant, admin=tenant == "ada") for tenant in ("ada", "ben", "cy"))
    report = run(Options(fragile.url, jobs=JOBS, seed=SEED, kill_every_s=2.5, keys=keys, receiver=receiver))
    report.write(tmp_path)
    assert report.passed, report.markdown()
    assert not report.unchecked
    assert json.loads((tmp_path / "chaos.json").read_text())["counts"]["jobs"] == JOBS
    assert {receipt.taken for receipt in receiver.receipts} == {True, False}
    assert sum(hurt.signal == "SIGKILL" for hurt in report.hurts) >= 2
    state = fragile.folder / "state"
    with sqlite3.connect(state / "jobs.db") as database:
        rows = database.execute("SELECT job_id, seq, type, data FROM events ORDER BY job_id, seq").fetchall()
        results = database.execute("SELECT jobs.id, json_extract(request, '$.n') FROM jobs WHERE state = 'done'")
        charged = dict(database.execute("SELECT job_id, count(*) FROM charges GROUP BY job_id").fetchall())
        published = dict(database.execute("SELECT job_id, count(*) FROM results GROUP BY job_id").fetchall())
        wanted = {job_id: n for job_id, n in results if (state / "artifacts" / "jobs" / job_id / "outputs").exists()}
    assert charged == published
    logs: dict[str, list[tuple[int, str, dict[str, Any]]]] = defaultdict(list)
    for job_id, seq, kind, data in rows:
        logs[job_id].append((seq, kind, json.loads(data)))
    assert not {job_id: found for job_id, log in logs.items() if (found := list(violations(log)))}
    assert wanted
    for job_id, n in wanted.items():
        outputs = state / "artifacts" / "jobs" / job_id / "outputs"
        assert len(list(outputs.glob("*.mp4"))) == n
