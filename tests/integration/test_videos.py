"""A video from request to file, over HTTP, through a real Ray cluster."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import av
import httpx
import pytest

from tests.integration.system import DATA, System, until

pytestmark = pytest.mark.integration


def test_multipart_to_mp4(system: System, tmp_path: Path) -> None:
    job = system.submit()
    assert job["object"] == "video"
    assert job["status"] == "queued"
    seen = []

    def probe() -> bool:
        now = system.get(job["id"])
        assert now is not None
        seen.append((now["status"], now["progress"]))
        return now["status"] == "completed"

    until("completed", probe, period_s=0.02)
    progress = [value for _, value in seen]
    assert progress == sorted(progress)
    assert progress[-1] == 100
    path = tmp_path / "video.mp4"
    path.write_bytes(system.content(job["id"]))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert f"{stream.codec_context.width}x{stream.codec_context.height}" == job["size"]
        assert stream.average_rate == 24
        assert sum(1 for _ in container.decode(stream)) == 25
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_json_with_data_uri_and_first_image_aspect(system: System) -> None:
    uri = "data:image/png;base64," + base64.b64encode((DATA / "triangle.png").read_bytes()).decode()
    response = system.client.post("/v1/videos", json={"prompt": "A triangle spins", "images": [uri], "seconds": 2})
    assert response.status_code == 200, response.text
    job = system.finish(response.json()["id"])
    assert job["size"] == "80x80"
    assert job["frames"] == 49


def test_same_seed_same_file(system: System) -> None:
    first, second, other = system.submit(seed="3"), system.submit(seed="3"), system.submit(seed="4")
    for job in (first, second, other):
        system.finish(job["id"])
    assert system.content(first["id"]) == system.content(second["id"])
    assert system.content(first["id"]) != system.content(other["id"])


def test_two_results_of_one_job_are_the_files_of_two_jobs(system: System) -> None:
    both = system.finish(system.submit(seed="3", n="2")["id"])
    singles = [system.finish(system.submit(seed=seed)["id"]) for seed in ("3", "4")]
    assert [result["seed"] for result in both["results"]] == [3, 4]
    files = [system.client.get(result["url"]).raise_for_status().content for result in both["results"]]
    assert files == [system.content(job["id"]) for job in singles]
    assert files[0] != files[1]
    worked = [stage["stage"] for stage in both["stages"] if stage["worked_s"] is not None]
    assert sorted(worked) == ["condition", "decode", "decode", "denoise", "denoise", "text"]
    for index, file in enumerate(files):
        with av.open(f"{system.url}/v1/videos/{both['id']}/preview?index={index}", timeout=60) as playlist:
            previewed = [frame.to_ndarray() for frame in playlist.decode(video=0)]
        with av.open(io.BytesIO(file)) as video:
            final = [frame.to_ndarray() for frame in video.decode(video=0)]
        assert all((a == b).all() for a, b in zip(previewed, final, strict=True))


def test_range_request(system: System) -> None:
    job = system.finish(system.submit()["id"])
    whole = system.content(job["id"])
    part = system.client.get(f"/v1/videos/{job['id']}/content", headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == whole[10:20]


def skyreels(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from deployments.cli.main import main; main()", *arguments]
    return subprocess.run([*command, "--url", system.url], capture_output=True, text=True, timeout=120, check=False)


def test_cli(system: System, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    arguments = ["--model", "skyreels-v3-r2v", "--prompt", "A ball", "--image", str(DATA / "ball.png")]
    made = skyreels(system, "generate", *arguments, "--image", str(DATA / "triangle.png"), "--out", str(out))
    assert made.returncode == 0, made.stderr
    assert out.read_bytes()[4:8] == b"ftyp"
    listed = skyreels(system, "list", "--limit", "1")
    (newest,) = system.client.get("/v1/videos", params={"limit": 1}).json()["data"]
    assert newest["id"] in listed.stdout
    assert "completed" in listed.stdout
    assert "denoise" in skyreels(system, "status").stdout
    assert "skyreels-v3-r2v" in skyreels(system, "models").stdout
    refused = skyreels(system, "generate", *arguments, "--seconds", "11", "--out", str(out))
    assert refused.returncode == 1
    assert "seconds must be 1 to 10" in refused.stderr
    assert "Traceback" not in refused.stderr
    several = skyreels(system, "generate", *arguments, "--n", "2", "--out", str(tmp_path / "many.mp4"))
    assert several.returncode == 0, several.stderr
    assert sorted(path.name for path in tmp_path.glob("many*")) == ["many-0.mp4", "many-1.mp4"]
    done = system.finish(system.submit()["id"])
    assert skyreels(system, "cancel", done["id"]).stdout.strip() == f"{done['id']} completed"


def test_metrics(system: System) -> None:
    system.finish(system.submit()["id"])
    edge = system.client.get("/metrics").text
    assert 'skyreels_jobs{state="done"}' in edge
    assert 'skyreels_stage_slots{stage="denoise"} 2.0' in edge

    def families() -> bool:
        text = httpx.get(system.metrics_url, trust_env=False).text
        return all(f"ray_skyreels_{name}" in text for name in ("stage_seconds", "step_seconds", "queue_seconds"))

    until("replica metrics are exported", families, period_s=0.5)
