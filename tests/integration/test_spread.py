"""Two denoiser groups in a real system: who gets which call."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.registry import MODELS
from components.tiny import WRITERS
from tests.integration.conftest import HASTE, laptop, started
from tests.integration.system import System, until
from tests.unit.deployments.line import film, moving

pytestmark = [pytest.mark.integration, pytest.mark.stress]
JOBS = 8  # by chance alone, all of them would be spread in one of 256 runs
R2V, SHOT = "skyreels-v3-r2v", "skyreels-v3-shot"
SOURCE = film(moving(30))  # made once: equal frames need not give equal bytes
EXCHANGES = "ray_skyreels_model_load_seconds_count"


@pytest.fixture(scope="module")
def groups(folder: Path) -> Iterator[System]:
    """Two groups that hold one model each, of two."""
    models = []
    for name in (R2V, SHOT):
        writer = WRITERS[MODELS[name].task]
        writer(folder / name)
        models.append({"name": name, "checkpoint": str(folder / name), "tiny": True})
    overrides: dict[str, Any] = {**HASTE, **laptop({"ranks": 1, "replicas": 2}), "ray": {"num_cpus": 8}}
    overrides |= {"models": models, "denoise": {**HASTE["denoise"], "loaded": 1, "host_nbytes": 2**30}}
    with started(System(folder / "groups", overrides=overrides)) as system:
        yield system


def workers(system: System, video_id: str) -> list[str]:
    """Who denoised each result."""
    query = "SELECT data FROM events WHERE job_id = ? AND type = 'stage'"
    with sqlite3.connect(system.folder / "state" / "jobs.db") as database:
        told = [json.loads(data) for (data,) in database.execute(query, (video_id,))]
    return [data["worker"] for data in told if (data["stage"], data["state"]) == ("denoise", "claimed")]


def shot(system: System) -> str:
    """A job of the other model."""
    files = [("video", ("source.mp4", SOURCE, "video/mp4"))]
    data = {"model": SHOT, "prompt": "[CUT_IN] the ball from above", "seconds": "2", "seed": "7"}
    response = system.client.post("/v1/videos", data=data, files=files)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def holders(system: System) -> dict[str, str]:
    """Which group holds which model, as the status says."""
    found = system.client.get("/v1/status").json()["workers"]
    return {model: worker["id"] for worker in found for model in worker["loaded"]}


def test_results_of_one_job_go_to_different_groups(groups: System) -> None:
    groups.finish(groups.submit()["id"])  # by then Serve has heard what both hold
    for seed in range(JOBS):
        job = groups.submit(n="2", seed=str(seed))
        assert groups.finish(job["id"])["attempts"] == 0
        took = workers(groups, job["id"])
        assert len(took) == len(set(took)) == 2


def test_a_models_jobs_go_to_the_group_that_holds_it(groups: System) -> None:
    for job in (groups.submit()["id"], shot(groups)):  # whatever the tests before have left
        groups.finish(job)
    until("each group tells what it holds", lambda: holders(groups).keys() == {R2V, SHOT})
    home = holders(groups)
    exchanges = groups.metric(EXCHANGES, cause="exchange")
    digests = set()
    for _ in range(JOBS):
        for job, model in ((groups.submit()["id"], R2V), (shot(groups), SHOT)):
            groups.finish(job)
            assert workers(groups, job) == [home[model]]
            digests.add((model, groups.digest(job)))
    assert holders(groups) == home
    assert len(digests) == 2  # equal requests, equal files
    assert groups.metric(EXCHANGES, cause="exchange") <= max(exchanges, 1)


def test_models_that_take_turns_in_one_place_change_nothing(groups: System) -> None:
    """Both groups are full of one model's calls, so that the other's must take a place."""
    alone = {R2V: groups.digest(groups.finish(groups.submit()["id"])["id"]), SHOT: ""}
    alone[SHOT] = groups.digest(groups.finish(shot(groups))["id"])
    before = groups.metric(EXCHANGES, cause="exchange")
    jobs = [(R2V, groups.submit()["id"]) for _ in range(6)] + [(SHOT, shot(groups)) for _ in range(6)]
    for model, job in jobs:
        assert groups.finish(job)["attempts"] == 0
        assert groups.digest(job) == alone[model]
    until("exchanges are counted", lambda: groups.metric(EXCHANGES, cause="exchange") > before)
