"""Beyond signals: the store's lock, and another version of a deployment."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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
    with sqlite3.connect(path, timeout=0) as other:
        other.execute("CREATE TABLE jobs (id)")
        other.commit()
        outage = asyncio.create_task(Means(SimpleNamespace(folder=tmp_path)).outage(0.3))  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO jobs VALUES (1)")
        assert other.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        await outage
        other.execute("INSERT INTO jobs VALUES (1)")
    other.close()


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
