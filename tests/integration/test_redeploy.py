"""A new version of each deployment under load: no job fails, and long stages go on from their snapshots."""

from __future__ import annotations

from itertools import count
from typing import Any

import httpx
import psutil
import pytest

from cluster.config import load
from cluster.serve_config import serve_config
from loadtest.processes import lives
from tests.integration.system import System, stage_of, until

pytestmark = [pytest.mark.integration, pytest.mark.long]

VERSIONS = count(1)


def redeploy(system: System, deployments: tuple[str, ...]) -> None:
    """As an operator would: the same config with another reservation for some deployments, which makes them new."""
    config = load(system.config)
    body: dict[str, Any] = serve_config(config)
    more_cpu = next(VERSIONS) / 1000
    for entry in body["applications"][0]["deployments"]:
        if entry["name"] in deployments:
            entry["ray_actor_options"]["num_cpus"] += more_cpu
            for bundle in entry.get("placement_group_bundles", [])[:1]:  # the replica's own
                bundle["CPU"] += more_cpu
    token = (system.folder / "state" / "ray-token").read_text().strip()
    response = httpx.put(
        f"http://127.0.0.1:{config.ray.dashboard_port}/api/serve/applications/",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    )
    assert response.is_success, response.text


def replaced(system: System, deployment: str, before: psutil.Process) -> bool:
    return not lives(before) and system.replica(deployment).pid != before.pid and system.whole()


def test_under_load_no_job_fails(deep: System) -> None:
    deployments = ("TextEncoder", "VaeRoom", "Denoiser", "Scheduler", "Courier", "Api")
    until("the system is whole", deep.whole)
    jobs = [deep.submit(seed=str(seed)) for seed in range(3)]
    deep.reach(jobs[0]["id"], lambda job: job["status"] == "in_progress", "runs")
    before = {name: deep.replica(name) for name in deployments}
    redeploy(deep, deployments)
    jobs.append(until("a request is accepted", lambda: deep.try_submit(seed="3")))
    for job in jobs:
        assert deep.finish(job["id"], 240)["status"] == "completed"
    for name, process in before.items():
        until(f"{name} is new", lambda name=name, process=process: replaced(deep, name, process))


def test_a_stage_longer_than_the_drain_goes_on_from_its_snapshot(deep: System) -> None:
    until("the system is whole", deep.whole)
    long = {"seconds": "5", "seed": "11"}
    undisturbed = deep.submit(**long)
    deep.finish(undisturbed["id"], 240)
    job = deep.submit(**long)
    deep.reach(job["id"], lambda now: stage_of(now, "denoise")["step"] >= 2, "denoises")
    before = deep.replica("Denoiser")
    redeploy(deep, ("Denoiser",))
    done = deep.finish(job["id"], 240)
    assert not lives(before)
    assert deep.digest(job["id"]) == deep.digest(undisturbed["id"])
    assert stage_of(done, "denoise")["attempt"] >= 1
