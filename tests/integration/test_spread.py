"""Two denoiser groups in a real system: the results of one job do not share a group while the other is free."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import HASTE, laptop
from tests.integration.system import System

pytestmark = [pytest.mark.integration, pytest.mark.stress]
JOBS = 8  # by chance alone, all of them would be spread in one of 256 runs


@pytest.fixture
def groups(folder: Path) -> Iterator[System]:
    overrides = {**HASTE, **laptop({"ranks": 1, "replicas": 2}), "ray": {"num_cpus": 8}}
    with System(folder / "groups", overrides=overrides) as system:
        yield system


def workers(system: System, video_id: str) -> list[str]:
    """Who denoised each result."""
    query = "SELECT data FROM events WHERE job_id = ? AND type = 'stage'"
    with sqlite3.connect(system.folder / "state" / "jobs.db") as database:
        told = [json.loads(data) for (data,) in database.execute(query, (video_id,))]
    return [data["worker"] for data in told if (data["stage"], data["state"]) == ("denoise", "claimed")]


def test_results_of_one_job_go_to_different_groups(groups: System) -> None:
    for seed in range(JOBS):
        job = groups.submit(n="2", seed=str(seed))
        assert groups.finish(job["id"])["attempts"] == 0
        took = workers(groups, job["id"])
        assert len(took) == len(set(took)) == 2
