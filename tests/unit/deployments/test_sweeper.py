"""Files go when their job has ended, and when no job ever came of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cluster.errors import Unavailable
from deployments.artifacts import ArtifactStore
from deployments.sweeper import ORPHAN_AGE_S, Sweeper
from deployments.telemetry import logger
from tests.unit.deployments.api.conftest import Edge
from tests.unit.deployments.api.test_videos import body


async def test_orphans_go_and_jobs_stay(edge: Edge) -> None:
    job = (await edge.client.post("/v1/videos", json=body())).json()
    artifacts = ArtifactStore(edge.config.artifacts_root)
    for name in ("video_orphan", "video_fresh"):
        await artifacts.put_bytes(f"jobs/{name}/inputs/0.png", b"left behind")
    folder = Path(edge.config.artifacts_root) / "jobs"
    (folder / "lost+found").mkdir()  # somebody else's
    old = time.time() - ORPHAN_AGE_S - 1
    for name in ("video_orphan", "lost+found", job["id"]):
        for path in (folder / name, *(folder / name).rglob("*")):
            os.utime(path, (old, old))
    await Sweeper(edge.store, artifacts, logger(), keep_s=1).sweep_orphans()
    assert sorted(path.name for path in folder.iterdir()) == sorted(["video_fresh", "lost+found", job["id"]])


async def test_deleted_jobs_leave_nothing(edge: Edge) -> None:
    job = (await edge.client.post("/v1/videos", json=body())).json()
    await edge.client.delete(f"/v1/videos/{job['id']}")
    await Sweeper(edge.store, ArtifactStore(edge.config.artifacts_root), logger(), keep_s=3600).sweep()
    assert edge.files() == []


class Stubborn(ArtifactStore):
    """A disk that does not give up the files of one job."""

    kept = ""

    async def delete_tree(self, prefix: str) -> None:
        if self.kept in prefix:
            raise Unavailable("The artifact store cannot delete: Input/output error.", retry_after_s=1)
        await super().delete_tree(prefix)


async def test_files_that_cannot_be_removed_hold_up_no_others(edge: Edge) -> None:
    jobs = [(await edge.client.post("/v1/videos", json=body())).json()["id"] for _ in range(3)]
    for job_id in jobs:
        await edge.client.delete(f"/v1/videos/{job_id}")
    artifacts = Stubborn(edge.config.artifacts_root)
    artifacts.kept = jobs[0]
    await Sweeper(edge.store, artifacts, logger(), keep_s=3600).sweep()
    assert {path.parts[-3] for path in edge.files()} == {jobs[0]}
    await Sweeper(edge.store, ArtifactStore(edge.config.artifacts_root), logger(), keep_s=3600).sweep()
    assert edge.files() == []
