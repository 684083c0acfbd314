"""What can be done to a system that the harness has started itself, beside signals to its processes."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

import httpx

from loadtest.local import LocalSystem

APPLICATION = "skyreels"
MORE_CPUS = 0.001  # a reservation that differs makes a replica another version
LOCK_S = 60.0  # longest wait for the store's lock, before an outage begins


class Means:
    """Replaces deployments through Serve's REST API, and keeps the job store's lock for a while."""

    def __init__(self, system: LocalSystem) -> None:
        self._system = system
        self._versions = 0

    async def replace(self, deployment: str) -> bool:
        """Deploys another version of one deployment; false while Serve does not answer."""
        token = (self._system.folder / "state" / "ray-token").read_text(encoding="utf-8").strip()
        url = f"{self._system.dashboard_url}/api/serve/applications/"
        headers = {"Authorization": f"Bearer {token}"}
        self._versions += 1
        try:
            async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as http:
                details = (await http.get(url)).raise_for_status().json()
                body = another_version(details, deployment, self._versions * MORE_CPUS)
                (await http.put(url, json=body)).raise_for_status()
        except httpx.HTTPError:
            return False
        return True

    async def outage(self, seconds: float) -> None:
        """The store takes no writes for so long; what reads goes on."""
        path = self._system.folder / "state" / "jobs.db"
        with closing(sqlite3.connect(path, timeout=LOCK_S, isolation_level=None, check_same_thread=False)) as other:
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            try:
                await asyncio.sleep(seconds)
            finally:
                other.execute("ROLLBACK")


def another_version(details: dict[str, Any], deployment: str, more_cpus: float) -> dict[str, Any]:
    """What Serve runs, as it is to be deployed again: one deployment reserves a little more than at first."""
    config = details["applications"][APPLICATION]["deployed_app_config"]
    for entry in config["deployments"]:
        if entry["name"] == deployment:
            options = entry["ray_actor_options"]
            options["num_cpus"] = round(options["num_cpus"], 2) + more_cpus
            for bundle in (entry.get("placement_group_bundles") or ())[:1]:  # the replica's own
                bundle["CPU"] = round(bundle["CPU"], 2) + more_cpus
    http = details["http_options"]
    return {
        "proxy_location": details["proxy_location"],
        "http_options": {"host": http["host"], "port": http["port"]},
        "applications": [config],
    }
