"""A whole system whose files lie in S3: from upload to deletion, and through an outage."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from tests.integration.conftest import HASTE, laptop, started
from tests.integration.system import DATA, System, until
from tests.s3 import CREDENTIALS, S3

pytestmark = [pytest.mark.integration, pytest.mark.long]
PREFIX = "install/one"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = S3()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield server
    server.close()


@pytest.fixture(scope="module")
def bucket(s3: S3) -> str:
    return s3.bucket()


@pytest.fixture(scope="module")
def works(folder: Path, s3: S3, bucket: str) -> Iterator[System]:
    """The laptop profile with a deep model and its artifacts in the bucket."""
    artifacts = {"root": f"s3://{bucket}/{PREFIX}", **s3.options().model_dump(mode="json", include=S3_KEYS)}
    overrides = {**laptop(), **HASTE, "artifacts": artifacts}
    with started(System(folder / "s3", checkpoint="deep-r2v", overrides=overrides)) as system:
        yield system


S3_KEYS = {"endpoint", "scheme", "connect_timeout_s", "request_timeout_s", "max_attempts"}


def upload(system: System, name: str) -> str:
    answer = system.client.post("/v1/files", files={"file": (name, (DATA / name).read_bytes())})
    assert answer.status_code == 200, answer.text
    file_id: str = answer.json()["id"]
    return file_id


def submit(system: System, images: list[str]) -> dict[str, Any]:
    body = {"prompt": "A red ball rolls over a grey floor", "images": images, "aspect_ratio": "16:9", "seconds": 2}
    answer = system.client.post("/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    return job


def kept(s3: S3, bucket: str) -> list[str]:
    """Everything in the bucket but encodings, which wait for the next request."""
    return [key for key in s3.keys(bucket) if not key.startswith(f"{PREFIX}/cache/")]


def redirected(system: System, path: str) -> httpx.Response:
    """What a client gets that follows redirects, out of the bucket."""
    answer = system.client.get(path)
    assert answer.status_code == 307, answer.text
    assert PREFIX in answer.headers["location"] and "X-Amz-Signature" in answer.headers["location"]
    return httpx.get(answer.headers["location"], trust_env=False, timeout=30).raise_for_status()


def begun_again(system: System, job_id: str) -> bool:
    """Whether a stage of the job has become ready more than once."""
    with sqlite3.connect(f"file:{system.folder / 'state' / 'jobs.db'}?mode=ro", uri=True) as store:
        rows = store.execute("SELECT data FROM events WHERE job_id = ? AND type = 'stage'", (job_id,)).fetchall()
    store.close()
    ready = [event["stage"] for (text,) in rows if (event := json.loads(text))["state"] == "ready"]
    return len(ready) > len(set(ready))


def test_from_upload_to_deletion(works: System, s3: S3, bucket: str) -> None:
    images = [upload(works, name) for name in ("ball.png", "triangle.png")]
    job = submit(works, images)
    path = f"/v1/videos/{job['id']}"
    for file_id in images:  # while the job runs: it has copies of its own
        assert works.client.delete(f"/v1/files/{file_id}").is_success
    done = works.finish(job["id"])
    assert done["attempts"] == 0
    content = redirected(works, f"{path}/content")
    assert content.headers["content-type"] == "video/mp4"
    assert content.headers["content-disposition"] == f'attachment; filename="{job["id"]}.mp4"'
    with av.open(io.BytesIO(content.content)) as video:
        assert sum(1 for _ in video.decode(video=0)) == done["frames"]
    head = works.client.head(f"{path}/content")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(content.content)))
    assert head.headers["etag"] == f'"{hashlib.sha256(content.content).hexdigest()}"'
    known = {"if-none-match": head.headers["etag"]}
    assert works.client.get(f"{path}/content", headers=known).status_code == 304
    playlist = works.client.get(f"{path}/preview").text
    names = re.findall(r"preview/[\w/.]+", playlist)
    assert len(names) == 1 + math.ceil(done["frames"] / 24)
    assert all(redirected(works, f"{path}/{name}").content for name in names)
    assert any(key.startswith(f"{PREFIX}/jobs/{job['id']}/outputs/") for key in s3.keys(bucket))
    assert works.client.delete(path).is_success
    until("the bucket holds nothing of it", lambda: not kept(s3, bucket))
    assert s3.uploads(bucket) == []
    assert not (works.folder / "state" / "artifacts").exists()


@pytest.mark.stress
def test_an_outage_costs_a_running_job_time_and_nothing_else(works: System, s3: S3, bucket: str) -> None:
    image = upload(works, "ball.png")
    job = submit(works, [image])
    works.reach(job["id"], lambda job: job["status"] == "in_progress", "is begun")
    with s3.away():
        answer = works.client.post("/v1/files", files={"file": ("a.png", (DATA / "ball.png").read_bytes())})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
        assert answer.headers["retry-after"]
        until("a stage was given back", lambda: begun_again(works, job["id"]))
    done = works.finish(job["id"])
    assert done["attempts"] == 0  # nothing was counted against it
    assert len(redirected(works, f"/v1/videos/{job['id']}/content").content) > 1000
    for path in (f"/v1/videos/{job['id']}", f"/v1/files/{image}"):
        assert works.client.delete(path).is_success
    until("the bucket holds nothing of it", lambda: not kept(s3, bucket))
