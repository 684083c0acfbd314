"""A VAE room of two ranks in a real system: what one process makes, whatever happens to a rank."""

from __future__ import annotations

import io
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from components.device import Placement
from components.media.segments import SegmentEncoder
from components.vae import Vae
from components.values import Latents
from deployments import blobs
from loadtest.processes import lives
from tests.integration.conftest import HASTE, started
from tests.integration.system import System, has_torch, stage_of, until

pytestmark = [pytest.mark.integration, pytest.mark.stress]  # a system of its own; the ranks alone are unit tests
LONG = {"seconds": "10"}
LABELS = {"skyreels.ai/pool": "vae"}
POOLS: list[dict[str, Any]] = [
    {"name": "Worker", "stages": ["text", "denoise"]},
    {"name": "VaeRoom", "stages": ["condition", "decode"], "ranks": 2, "labels": LABELS},
]


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[System]:
    overrides = {**HASTE, "topology": "disaggregated", "pools": POOLS, "ray": {"labels": LABELS}}
    with started(System(folder / "vae", overrides=overrides)) as system:
        yield system


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> None:
    if "shared" in request.fixturenames:
        until("the system is whole", request.getfixturevalue("shared").whole)


def decoding(job: dict[str, Any]) -> bool:
    return bool(stage_of(job, "decode")["step"] >= 4)


def ends_of(system: System, video_id: str) -> list[str]:
    """What the job's log tells of its results and its end, in order."""
    query = "SELECT type, data FROM events WHERE job_id = ? AND type IN ('result', 'state') ORDER BY seq"
    with sqlite3.connect(system.folder / "state" / "jobs.db") as database:
        rows = database.execute(query, (video_id,)).fetchall()
    told = [json.loads(data).get("state", kind) for kind, data in rows]
    return [state for state in told if state != "running"]


def frames_of(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)


def encoded(vae: Vae, latents: Latents, fps: int) -> bytes:
    """What one process makes of the latents."""
    _, _, _, height, width = latents.video_BCTHW.shape
    encoder = SegmentEncoder(height * 8, width * 8, fps)
    pieces = [encoder.encode(frames) for frames in vae.decode(latents)]
    return encoder.init + b"".join(segment.data for piece in (*pieces, encoder.finish()) for segment in piece)


def test_two_ranks_make_what_one_process_makes(shared: System) -> None:
    job = shared.submit(**LONG)
    shared.reach(job["id"], decoding, "decodes")
    work = shared.folder / "state" / "artifacts" / "jobs" / job["id"] / "work"
    (path,) = work.glob("denoise-*latents.safetensors")
    latents = Latents.from_tensors(blobs.mapped(path))
    assert not has_torch(shared.replica("VaeRoom"))
    ranks = shared.vae_ranks()
    assert len(ranks) == 2
    assert all(has_torch(rank) for rank in ranks)
    done = shared.finish(job["id"])
    assert done["attempts"] == 0
    vae = Vae.load(shared.folder.parent / "tiny-r2v", Placement.of("cpu"))
    difference = np.abs(frames_of(shared.content(job["id"])) - frames_of(encoded(vae, latents, done["fps"])))
    # Pixels differ by one level where a value lies on its border; the encoder spreads such a difference a little.
    assert difference.mean() < 0.05
    assert difference.max() <= 8


@pytest.mark.parametrize(
    ("number", "victim", "within_s"),
    [(signal.SIGKILL, 1, 120.0), (signal.SIGSTOP, 0, 240.0), (signal.SIGSTOP, 1, 240.0)],
    ids=["kill", "stop the writer", "stop the other"],
)
def test_a_rank_that_dies_or_hangs_in_mid_decode(
    shared: System, number: signal.Signals, victim: int, within_s: float
) -> None:
    """Whoever is stopped answers nobody: only the watchdog ends such a step, after what a step that writes may take."""
    undisturbed = shared.submit(**LONG)
    shared.finish(undisturbed["id"])
    job = shared.submit(**LONG)
    shared.reach(job["id"], decoding, "decodes")
    old = shared.vae_ranks()
    old[victim].send_signal(number)
    done = shared.finish(job["id"], within_s)
    assert done["attempts"] == 0  # the group was rebuilt in place
    assert shared.digest(job["id"]) == shared.digest(undisturbed["id"])
    assert ends_of(shared, job["id"]) == ["result", "publishing", "done"]  # once
    preview = shared.client.get(f"/v1/videos/{job['id']}/preview").text
    assert preview.count("#EXTINF") == 11
    until("the old ranks are gone", lambda: not any(lives(rank) for rank in old), 60)
    assert len(shared.vae_ranks()) == 2


def test_sigkill_of_the_replica_takes_its_ranks_along(shared: System) -> None:
    job = shared.submit(**LONG)
    shared.reach(job["id"], decoding, "decodes")
    ranks = shared.vae_ranks()
    shared.replica("VaeRoom").kill()
    assert shared.finish(job["id"])["attempts"] == 1
    until("its ranks are gone", lambda: not any(lives(rank) for rank in ranks), 30)


def test_cancel_frees_the_ranks(shared: System) -> None:
    job = shared.submit(**LONG)
    shared.reach(job["id"], decoding, "decodes")
    shared.client.post(f"/v1/videos/{job['id']}/cancel").raise_for_status()
    until("nothing runs", lambda: not any(shared.client.get("/v1/status").json()["busy"].values()), 30)
    shared.finish(shared.submit()["id"])


def test_a_machine_without_the_labels_is_told_at_the_start(folder: Path) -> None:
    system = System(folder / "misplaced", overrides={"topology": "disaggregated", "pools": POOLS})
    command = [sys.executable, "-c", "from deployments.cli.main import main; main()", "serve", "--config"]
    ended = subprocess.run([*command, str(system.config)], capture_output=True, text=True, timeout=120, check=False)
    system.close()
    assert ended.returncode != 0
    said = " ".join((ended.stdout + ended.stderr).split())
    assert "no node has the labels skyreels.ai/pool=vae that pool VaeRoom asks for" in said
