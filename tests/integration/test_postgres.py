"""The laptop's system on PostgreSQL: the server goes away in mid-job and comes back."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import HASTE, laptop, started
from tests.integration.system import System, stage_of
from tests.postgres import PASSWORD, Server, private_server

pytestmark = pytest.mark.integration

LONG = {"seconds": "3"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with private_server() as server:
        yield server


@pytest.fixture(scope="module")
def on_postgres(folder: Path, server: Server) -> Iterator[System]:
    overrides = {**laptop(), **HASTE, "store": {"url": server.new()}}
    with started(System(folder / "postgres", checkpoint="deep-r2v", overrides=overrides)) as system:
        yield system


@pytest.fixture(scope="module")
def undisturbed(on_postgres: System) -> str:
    job = on_postgres.submit(**LONG)
    on_postgres.finish(job["id"])
    return on_postgres.digest(job["id"])


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def frozen(server: Server) -> AbstractContextManager[None]:
    return server.frozen()


@pytest.mark.parametrize(
    ("away", "outage_s"),
    [
        (stopped, 2 * HASTE["scheduler"]["lease_ttl_s"]),
        pytest.param(stopped, 30.0, marks=pytest.mark.stress),
        pytest.param(frozen, 30.0, marks=pytest.mark.stress),
    ],
)
def test_a_server_that_goes_away_in_mid_job(
    on_postgres: System, server: Server, undisturbed: str, away: Any, outage_s: float
) -> None:
    system = on_postgres
    running = system.submit(**LONG)
    queued = [system.submit() for _ in range(2)]
    system.reach(running["id"], lambda job: stage_of(job, "denoise")["step"] >= 2, "denoises")
    with away(server):
        until_at = time.monotonic() + outage_s
        while time.monotonic() < until_at:
            _refused(system.client.get(f"/v1/videos/{running['id']}"))
            _refused(system.client.delete(f"/v1/videos/{running['id']}"))
            time.sleep(0.5)
    for job in (running, *queued):
        done = system.finish(job["id"])
        assert done["attempts"] == 0
        log = _log(system, server, job["id"])
        claims = Counter(data["stage"] for kind, data in log if kind == "stage" and data["state"] == "claimed")
        assert claims == dict.fromkeys(("text", "condition", "denoise", "decode"), 1)
        assert [data["state"] for kind, data in log if kind == "state"] == ["running", "publishing", "done"]
    assert system.digest(running["id"]) == undisturbed
    assert len({system.digest(job["id"]) for job in queued}) == 1


def test_the_password_is_in_no_log(on_postgres: System) -> None:
    logs = [path for path in on_postgres.folder.rglob("*.log") if path.is_file()]
    assert logs
    for path in logs:
        assert PASSWORD.partition("/")[0] not in path.read_text(errors="replace")


def _refused(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert int(response.headers["Retry-After"]) >= 1


def _log(system: System, server: Server, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    """The job's log, read from the store itself; its numbers have no gap."""
    query = f"SELECT seq, type, data FROM events WHERE job_id = '{job_id}' ORDER BY seq"
    rows = server.sql(query, system.overrides["store"]["url"])
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    return [(row["type"], json.loads(row["data"])) for row in rows]
