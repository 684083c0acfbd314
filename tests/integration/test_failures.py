"""Stop jobs in the middle; kill, freeze and restart in mid-job: each job finishes exactly once, with the frames of an
undisturbed run, and nothing is left behind.
"""

from __future__ import annotations

import signal
import sqlite3
from typing import Any

import psutil
import pytest

from loadtest.processes import lives
from tests.integration.system import System, stage_of, until

pytestmark = pytest.mark.integration

LONG = {"seconds": "3"}


def denoising(job: dict[str, Any]) -> bool:
    return job["phase"] == "denoise" and bool(stage_of(job, "denoise")["step"] >= 2)


def history(system: System, video_id: str) -> list[tuple[str, str]]:
    """The job's log, read from the store itself; its numbers have no gap."""
    with sqlite3.connect(system.folder / "state" / "jobs.db") as database:
        rows = database.execute(
            "SELECT seq, type, data FROM events WHERE job_id = ? ORDER BY seq", (video_id,)
        ).fetchall()
    assert [seq for seq, _, _ in rows] == list(range(1, len(rows) + 1))
    return [(kind, data) for _, kind, data in rows]


def finished_once(system: System, job: dict[str, Any], digest: str) -> dict[str, Any]:
    done = system.finish(job["id"])
    assert system.digest(job["id"]) == digest
    log = history(system, job["id"])
    assert sum(kind == "state" and '"done"' in data for kind, data in log) == 1
    assert '"done"' in log[-1][1]
    outputs = system.folder / "state" / "artifacts" / "jobs" / job["id"] / "outputs"
    assert len(list(outputs.glob("*.mp4"))) == 1
    until("only one attempt's preview is left", lambda: len(list(outputs.glob("preview/*"))) == 1, 30)
    return done


@pytest.fixture(scope="module")
def undisturbed(deep: System) -> str:
    job = deep.submit(**LONG)
    deep.finish(job["id"])
    return deep.digest(job["id"])


@pytest.fixture(autouse=True)
def whole(deep: System) -> None:
    until("the system is whole", deep.whole)


def test_delete_stops_a_running_job(deep: System) -> None:
    job = deep.submit(**LONG)
    deep.reach(job["id"], denoising, "denoises")
    answer = deep.client.delete(f"/v1/videos/{job['id']}").json()
    assert answer == {"id": job["id"], "object": "video.deleted", "deleted": True}
    assert deep.client.get(f"/v1/videos/{job['id']}").status_code == 404

    def idle() -> bool:
        status = deep.client.get("/v1/status").json()
        return not any(status["busy"].values()) and not any(status["ready"].values())

    until("the worker is free", idle, 10)
    folder = deep.folder / "state" / "artifacts" / "jobs" / job["id"]
    until("its files are gone", lambda: not folder.exists(), 30)


def test_cancel_keeps_the_job_as_failed(deep: System) -> None:
    job = deep.submit(**LONG)
    answer = deep.client.post(f"/v1/videos/{job['id']}/cancel").json()
    assert (answer["status"], answer["error"]["code"]) == ("failed", "cancelled")
    assert deep.client.get(f"/v1/videos/{job['id']}").json()["status"] == "failed"
    assert deep.client.get(f"/v1/videos/{job['id']}/content").status_code == 409


@pytest.mark.parametrize("victim", ["TextEncoder", "VaeRoom", "Denoiser", "Scheduler", "Api"])
def test_sigkill_in_mid_job(deep: System, undisturbed: str, victim: str) -> None:
    job = deep.submit(**LONG)
    deep.reach(job["id"], denoising, "denoises")
    ranks = deep.ranks()
    assert len(ranks) == 2
    process = deep.replica(victim)
    process.kill()
    after = until("a request is accepted", lambda: deep.try_submit(**LONG))
    done = finished_once(deep, job, undisturbed)
    finished_once(deep, after, undisturbed)
    assert done["attempts"] == (1 if victim == "Denoiser" else 0)
    assert not lives(process)
    if victim == "Denoiser":
        until("its ranks are gone", lambda: not any(lives(rank) for rank in ranks), 30)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_dies_or_hangs(deep: System, undisturbed: str, number: signal.Signals) -> None:
    job = deep.submit(**LONG)
    deep.reach(job["id"], denoising, "denoises")
    victims = deep.ranks()
    victims[-1].send_signal(number)
    done = finished_once(deep, job, undisturbed)
    assert done["attempts"] == 0  # the group was rebuilt in place
    until("the old ranks are gone", lambda: not any(lives(rank) for rank in victims), 30)
    assert len(deep.ranks()) == 2


@pytest.mark.long
def test_restart_of_the_whole_system_with_queued_and_running_jobs(deep: System, undisturbed: str) -> None:
    running = deep.submit(**LONG)
    queued = [deep.submit() for _ in range(3)]
    deep.reach(running["id"], denoising, "denoises")
    deep.kill()
    deep.start()
    finished_once(deep, running, undisturbed)
    for job in queued:
        deep.finish(job["id"])
    assert len({deep.digest(job["id"]) for job in queued}) == 1


def test_scratch_is_empty_when_nothing_runs(deep: System) -> None:
    deep.finish(deep.submit()["id"])
    scratch = deep.folder / "state" / "scratch"
    assert not [path for path in scratch.rglob("*") if path.is_file()]
    pids = [int(path.name) for path in scratch.iterdir()]
    assert all(psutil.pid_exists(pid) for pid in pids)
