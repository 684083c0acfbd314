"""Values between the stage processes of a real system: by reference, never through Scheduler or Api, and gone after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.integration.system import System, has_torch, stage_of, until

pytestmark = pytest.mark.integration

LONG = {"seconds": "3"}
CONTROL_NBYTES = 2048


def denoising(job: dict[str, Any]) -> bool:
    return job["phase"] == "denoise" and bool(stage_of(job, "denoise")["step"] >= 2)


@pytest.fixture(autouse=True)
def nothing_is_left(deep: System) -> Iterator[None]:
    until("the system is whole", deep.whole)
    yield
    until("nothing runs", lambda: not any(deep.client.get("/v1/status").json()["busy"].values()))
    # Ray leaves one byte for each value that was asked for after its owner's death.
    until("the object store is empty", lambda: abs(deep.shared_nbytes()) < 100, period_s=0.5)


def rss(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def test_a_job_hands_over_by_reference(system: System) -> None:
    """Every copy goes into the object store, one per value; nothing is read back from a file."""

    def moved() -> dict[str, float]:
        bytes_, copies = "ray_skyreels_handoff_bytes_total", "ray_skyreels_handoff_copies_total"
        return {
            "shared": system.metric(bytes_, path="object_store", direction="write"),
            "mapped": system.metric(bytes_, path="object_store", direction="read"),
            "read": system.metric(bytes_, path="file", direction="read"),
            "copies": system.metric(copies),
            "copies by sharing": system.metric(copies, path="object_store"),
        }

    before = moved()
    jobs = [system.submit(seed=str(seed)) for seed in range(3)]
    for job in jobs:
        system.finish(job["id"])

    def counted() -> dict[str, float] | None:
        """What was moved since, once every process has reported: each reports when it likes."""
        growth = {name: value - before[name] for name, value in moved().items()}
        whole = growth["copies"] >= 3 * len(jobs)  # context, condition, latents
        return growth if whole and growth["mapped"] > growth["shared"] > 0 else None  # both ranks map the inputs

    growth = until("all hand-offs are counted", counted)
    assert growth["copies"] == growth["copies by sharing"]
    assert growth["read"] == 0


def test_no_tensor_is_held_by_scheduler_or_api(deep: System) -> None:
    job = deep.submit(seconds="10")
    deep.reach(job["id"], denoising, "denoises")
    pids = {deep.replica(name).pid for name in ("Scheduler", "Api")}
    assert not any(has_torch(deep.replica(name)) for name in ("Scheduler", "Api", "Denoiser"))
    assert all(has_torch(rank) for rank in deep.ranks())
    ranks = {process.pid for process in deep.ranks()}

    def mapped() -> list[dict[str, Any]] | None:
        """The large objects, once a rank maps one of them: processes report when they like."""
        large = [entry for entry in deep.references() if int(entry["object_size"]) > CONTROL_NBYTES]
        pinned = {entry["pid"] for entry in large if entry["reference_type"] == "PINNED_IN_MEMORY"}
        return large if pinned & ranks else None

    large = until("a rank maps its inputs", mapped)
    # What they own are answers of calls, which have a task; of the values they hold others' references, unread.
    held = [entry for entry in large if entry["pid"] in pids]
    assert held, "the Scheduler keeps the hints of the denoiser's inputs meanwhile"
    assert {entry["task_status"] for entry in held} == {"NIL"}
    assert "PINNED_IN_MEMORY" not in {entry["reference_type"] for entry in held}
    deep.client.delete(f"/v1/videos/{job['id']}")


def test_a_new_scheduler_has_no_hints(deep: System) -> None:
    """It reads nothing itself; the next stage reads the durable copy."""
    before = deep.metric("ray_skyreels_handoff_bytes_total", path="file", direction="read")
    job = deep.submit(**LONG)
    deep.reach(job["id"], denoising, "denoises")
    deep.replica("Scheduler").kill()
    done = deep.finish(job["id"])
    assert done["attempts"] == 0
    until(
        "the decoder's read is counted",
        lambda: deep.metric("ray_skyreels_handoff_bytes_total", path="file", direction="read") > before,
    )


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_nothing_leaks(deep: System) -> None:
    """Jobs that end well, cancelled ones, and one whose producer is killed; the fixture looks at what is left."""
    control = [deep.replica(name) for name in ("Scheduler", "Api")]
    for seed in range(3):
        deep.finish(deep.submit(seed=str(seed))["id"])
    before = [rss(process) for process in control]
    jobs = [deep.submit(seed=str(seed)) for seed in range(20)]
    for job in jobs[::4]:
        deep.client.post(f"/v1/videos/{job['id']}/cancel").raise_for_status()
    kept = [job for index, job in enumerate(jobs) if index % 4]
    deep.reach(kept[2]["id"], lambda job: job["phase"] in {"denoise", "decode"} or job["progress"] == 100, "runs")
    deep.replica("TextEncoder").kill()
    deep.ranks()[-1].kill()
    for job in kept:
        deep.finish(job["id"])
    after = [rss(process) for process in control]
    for process, old, new in zip(control, before, after, strict=True):
        assert new - old < 20 * 2**20, f"{process.name()} grew from {old} to {new} bytes"
