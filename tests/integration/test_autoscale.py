"""Two stages of a real system from no replica to their most and back, by the work in the store alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.config import load
from cluster.serve_config import serve_config
from tests.integration.system import System, until

pytestmark = [pytest.mark.integration, pytest.mark.stress, pytest.mark.timeout(600)]

SCALED = {"min_replicas": 0, "max_replicas": 2, "downscale_delay_s": 3.0}
POOLS: list[dict[str, Any]] = [
    {"name": "TextEncoder", "stages": ["text"]},
    {"name": "Denoiser", "stages": ["denoise"], **SCALED},
    {"name": "VaeRoom", "stages": ["condition", "decode"], **SCALED},
]
BURST = 8


@pytest.fixture(scope="module")
def elastic(folder: Path) -> Iterator[System]:
    overrides = {"topology": "disaggregated", "pools": POOLS, "autoscale": {"backlog_s": 0.2, "period_s": 0.2}}
    with System(folder / "elastic", overrides=overrides) as system:
        yield system


def replicas(system: System) -> dict[str, int]:
    """Live ones of the scaled pools, as the job store knows them."""
    workers = system.client.get("/v1/status").json()["workers"]
    counts = Counter(worker["pool"] for worker in workers)
    return {pool: counts[pool] for pool in ("Denoiser", "VaeRoom")}


def told(system: System) -> list[dict[str, Any]]:
    """The log lines of the policy in Serve's controller."""
    found = re.search(r"logs\s+(/\S+)", system.log.read_text())
    assert found is not None
    lines = [line for path in Path(found[1]).glob("worker-*.err") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if '"message": "scaling ' in line]


def steps(system: System, pool: str) -> list[tuple[int, str]]:
    """What a pool was scaled to, and why, in order."""
    found = []
    for line in sorted(told(system), key=lambda line: str(line["time"])):
        if line["pool"] == pool:
            match = re.match(rf"scaling {pool} from \d+ to (\d+): (.+)$", line["message"])
            assert match is not None, line
            found.append((int(match[1]), match[2]))
    return found


def redeploy(system: System, *, paused: bool) -> None:
    """As `skyreels cluster drain` and `resume` do through the operator."""
    config = load(system.config)
    body = serve_config(config)
    for entry in body["applications"][0]["deployments"]:
        if entry["name"] == "Scheduler":
            entry["user_config"]["paused"] = paused
    token = (system.folder / "state" / "ray-token").read_text().strip()
    response = httpx.put(
        f"{system.dashboard_url}/api/serve/applications/",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    )
    assert response.is_success, response.text


def scheduling(system: System) -> list[str]:
    """What the Scheduler says of being paused, in order."""
    found = re.search(r"logs\s+(/\S+)", system.log.read_text())
    assert found is not None
    text = "".join(path.read_text() for path in Path(found[1]).glob("worker-*.err"))
    return re.findall(r'"message": "(dispatching is paused|dispatching)"', text)


def test_a_drained_burst_takes_two_stages_from_nothing_to_their_most_and_back(elastic: System) -> None:
    assert replicas(elastic) == {"Denoiser": 0, "VaeRoom": 0}
    scheduler = elastic.replica("Scheduler").pid
    redeploy(elastic, paused=True)
    until("dispatching is paused", lambda: scheduling(elastic)[-1:] == ["dispatching is paused"])
    jobs = [elastic.submit(seed=str(seed)) for seed in range(BURST)]
    # Every pool on the way of the work starts although none of it has begun; with all there, nothing begins.
    until("the pools have started", lambda: all(replicas(elastic).values()), 240)
    assert all(elastic.client.get(f"/v1/videos/{job['id']}").json()["status"] == "queued" for job in jobs)
    redeploy(elastic, paused=False)

    for job in jobs:
        assert elastic.finish(job["id"], 240)["status"] == "completed"
    until("both pools are gone", lambda: replicas(elastic) == {"Denoiser": 0, "VaeRoom": 0}, 120)
    assert elastic.replica("Scheduler").pid == scheduler  # both were live settings
    for pool in ("Denoiser", "VaeRoom"):
        until(f"{pool} is told to be gone", lambda pool=pool: steps(elastic, pool)[-1] == (0, "idle"), 60)
        targets = [target for target, _ in steps(elastic, pool)]
        assert targets[0] > 0, "it began with nothing"
        assert max(targets) == SCALED["max_replicas"], targets
        ups = partial(elastic.metric, "ray_skyreels_autoscale_decisions_total", pool=pool, direction="up")
        until(f"the decisions of {pool} are counted", lambda ups=ups: ups() >= 1)
