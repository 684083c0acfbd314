"""Beyond signals: the store's lock, and another version of a deployment."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.serve.schema import ServeDeploySchema

from cluster.config import profile
from cluster.serve_config import serve_config
from loadtest.chaos.means import Means, another_version


def details() -> dict[str, Any]:
    deployments = [
        {"name": "Api", "ray_actor_options": {"num_cpus": 0.1}},
        {
            "name": "Denoiser",
            "ray_actor_options": {"num_cpus": 0.2},
            "placement_group_bundles": [{"CPU": 0.2}, {"CPU": 1}],
        },
    ]
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": 8000, "request_timeout_s": None},
        "applications": {"skyreels": {"deployed_app_config": {"name": "skyreels", "deployments": deployments}}},
    }


async def test_an_outage_takes_no_writes_and_ends(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "jobs.db"
    with sqlite3.connect(path, timeout=0, isolation_level=None) as other:
        other.execute("CREATE TABLE jobs (id)")
        outage = asyncio.create_task(Means(SimpleNamespace(folder=tmp_path)).outage(1000))  # type: ignore[arg-type]
        while writable(other):
            await asyncio.sleep(0.01)
        assert other.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        outage.cancel()
        await asyncio.gather(outage, return_exceptions=True)
        assert writable(other)
    other.close()


def writable(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    connection.execute("ROLLBACK")
    return True


def test_serve_takes_what_it_gave_with_one_deployment_changed() -> None:
    """By Serve's own schemas, as its REST API reads and writes them."""
    given = ServeDeploySchema.model_validate(serve_config(profile("laptop")))
    (application,) = given.applications
    told = given.model_dump(mode="json", exclude_unset=True)
    running = {"skyreels": {"deployed_app_config": application.model_dump(mode="json", exclude_unset=True)}}
    body = another_version(told | {"applications": running}, "Denoiser", 0.001)
    taken = ServeDeploySchema.model_validate(body)
    assert taken.http_options == given.http_options
    changed = [
        new.name
        for old, new in zip(application.deployments, taken.applications[0].deployments, strict=True)
        if old != new
    ]
    assert changed == ["Denoiser"]
    assert taken.applications[0].args == application.args


def test_another_version_differs_in_one_reservation() -> None:
    body = another_version(details(), "Denoiser", 0.002)
    api, denoiser = body["applications"][0]["deployments"]
    assert api == details()["applications"]["skyreels"]["deployed_app_config"]["deployments"][0]
    assert denoiser["ray_actor_options"] == {"num_cpus": 0.202}
    assert denoiser["placement_group_bundles"] == [{"CPU": 0.202}, {"CPU": 1}]
    assert body["http_options"] == {"host": "127.0.0.1", "port": 8000}
    again = {"skyreels": {"deployed_app_config": body["applications"][0]}}
    later = another_version(details() | {"applications": again}, "Denoiser", 0.003)
    assert later["applications"][0]["deployments"][1]["ray_actor_options"] == {"num_cpus": 0.203}
