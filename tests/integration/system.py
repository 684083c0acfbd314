"""A whole system in its own process group, as a user would start it, and the means to hurt it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from loadtest.local import LocalSystem
from loadtest.processes import RANKS

T = TypeVar("T")
DATA = Path(__file__).parent.parent / "data"
INLINE_NBYTES = 100 * 1024  # smaller results of calls stay out of the object store


def until(what: str, probe: Callable[[], T | None], timeout_s: float = 120.0, period_s: float = 0.05) -> T:
    """Waits for a truthy answer; a failing test says what it waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := probe():
            return answer
        time.sleep(period_s)
    raise AssertionError(f"{what}: not within {timeout_s} s")


def rank_processes() -> list[psutil.Process]:
    """Those of denoiser groups that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if RANKS["rank"] in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.pid)


def has_torch(process: psutil.Process) -> bool:
    """Whether the tensor library is mapped into it."""
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


class System(LocalSystem):
    """A system to hurt and to look into."""

    def replica(self, deployment: str) -> psutil.Process:
        """The process of a deployment's replica."""
        return until(
            f"a replica of {deployment}", lambda: next(self._titled(f"ServeReplica:skyreels:{deployment}"), None)
        )

    def ranks(self) -> list[psutil.Process]:
        """The processes of the denoiser group's ranks; none where the replica denoises itself."""
        return list(self._titled(RANKS["rank"]))

    def vae_ranks(self) -> list[psutil.Process]:
        """The processes that share the VAE."""
        return list(self._titled(RANKS["VAE rank"]))

    def _titled(self, title: str) -> Iterator[psutil.Process]:
        for member in self.members():
            try:
                if title in " ".join(member.cmdline()):
                    yield member
            except psutil.NoSuchProcess:
                continue

    # -- what Ray says -----------------------------------------------------------------------------------------
    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of a metric that have these labels; metrics lag by seconds."""
        total = 0.0
        for line in httpx.get(self.metrics_url, trust_env=False, timeout=30).text.splitlines():
            if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total

    def shared_nbytes(self) -> int:
        """Bytes in Ray's object store beside those of Serve's controller, which keeps its deployments there."""
        used = int(self.metric("ray_object_store_memory", Component="raylet"))
        controllers = {process.pid for process in self._titled("ray::ServeController")}
        kept = {
            entry["object_id"]: int(entry["object_size"])
            for entry in self.references()
            if entry["pid"] in controllers and int(entry["object_size"]) > INLINE_NBYTES
        }
        return used - sum(kept.values())

    def settle(self) -> None:
        """Waits until nothing runs and no value lies in the object store."""
        until("nothing runs", lambda: not any(self.client.get("/v1/status").json()["busy"].values()))
        # Ray leaves one byte for each value that was asked for after its owner's death.
        until("the object store is empty", lambda: abs(self.shared_nbytes()) < 100, period_s=0.5)

    def references(self) -> list[dict[str, Any]]:
        """Every process's references to objects: pid, object_id, object_size (-1 when unknown there) …"""
        token = (self.folder / "state" / "ray-token").read_text().strip()
        response = httpx.get(
            f"{self.dashboard_url}/api/v0/objects",
            params={"limit": 10_000, "detail": True, "timeout": 30},
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=60,
        )
        found: list[dict[str, Any]] = response.raise_for_status().json()["data"]["result"]["result"]
        return found

    # -- a client ----------------------------------------------------------------------------------------------
    def submit(self, **fields: str) -> dict[str, Any]:
        data = {"prompt": "A red ball rolls over a grey floor", "aspect_ratio": "16:9", "seed": "7", **fields}
        files = [("images", (name, (DATA / name).read_bytes(), "image/png")) for name in ("ball.png", "triangle.png")]
        response = self.client.post("/v1/videos", data=data, files=files)
        assert response.status_code == 200, response.text
        job: dict[str, Any] = response.json()
        return job

    def try_submit(self, **fields: str) -> dict[str, Any] | None:
        """As a patient client: None while the edge is down."""
        try:
            return self.submit(**fields)
        except (httpx.TransportError, AssertionError):
            return None

    def get(self, video_id: str) -> dict[str, Any] | None:
        """The job, or None while the edge is down."""
        try:
            response = self.client.get(f"/v1/videos/{video_id}")
        except httpx.TransportError:
            return None
        if response.status_code >= 500:
            return None
        assert response.status_code == 200, response.text
        job: dict[str, Any] = response.json()
        return job

    def reach(self, video_id: str, arrived: Callable[[dict[str, Any]], bool], what: str, timeout_s: float = 120) -> Any:
        """Polls until the job is where the test wants it; a job that failed on the way fails the test."""

        def probe() -> dict[str, Any] | None:
            job = self.get(video_id)
            assert job is None or job["status"] != "failed", job
            return job if job and arrived(job) else None

        return until(f"{video_id} {what}", probe, timeout_s)

    def finish(self, video_id: str, timeout_s: float = 120) -> dict[str, Any]:
        done: dict[str, Any] = self.reach(video_id, lambda job: job["status"] == "completed", "completed", timeout_s)
        return done

    def content(self, video_id: str) -> bytes:
        response = self.client.get(f"/v1/videos/{video_id}/content")
        assert response.status_code == 200, response.text
        return response.content

    def digest(self, video_id: str) -> str:
        return hashlib.sha256(self.content(video_id)).hexdigest()


def stage_of(job: dict[str, Any], name: str) -> dict[str, Any]:
    stage: dict[str, Any] = next(stage for stage in job["stages"] if stage["stage"] == name)
    return stage
