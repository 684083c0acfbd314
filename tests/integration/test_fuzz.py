"""A short form of `make fuzz`: no request makes the server fail, or answer other than it says it does."""

from __future__ import annotations

import pytest

from tests.integration.fuzz import fuzz
from tests.integration.system import System

pytestmark = pytest.mark.integration


def drop_unfinished(system: System) -> None:
    """What the fuzzer queued is of no use to the other tests."""
    for job in system.client.get("/v1/videos", params={"limit": 100}).raise_for_status().json()["data"]:
        if job["status"] in {"queued", "in_progress"}:
            system.client.delete(f"/v1/videos/{job['id']}")


@pytest.mark.long
def test_ids_that_do_not_exist(system: System) -> None:
    fuzz(system.url, examples=3)
    drop_unfinished(system)
    assert system.client.get("/healthz").status_code == 200


def test_a_finished_video(system: System) -> None:
    done = system.finish(system.submit()["id"])["id"]
    fuzz(system.url, examples=3, video_id=done)
    drop_unfinished(system)
    assert system.client.get(f"/v1/videos/{done}").json()["status"] == "completed"
