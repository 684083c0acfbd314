"""Callers of the Videos API for Locust (https://locust.io), a closed loop: each waits for its video before the next.

    pip install locust
    locust -f loadtest/examples/locustfile.py --host http://127.0.0.1:8000 --headless -u 4 -t 2m

The time until a video is completed is reported as "video". Locust's waits follow the server, so a slow server is asked
less; `skyreels-load run` sends when requests are due.
"""

from __future__ import annotations

import time

from locust import HttpUser, between, task

RED = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAJCAIAAAC0SDtlAAAAF0lEQVR42mM8wcXFQApgYiARjGqgiQYA"
    "i0sA7jIUkUAAAAAASUVORK5CYII="
)
POLL_S = 0.5


class Caller(HttpUser):
    """Asks for a one-second video and waits for it."""

    wait_time = between(0.5, 2.0)

    @task
    def video(self) -> None:
        body = {
            "model": "skyreels-v3-r2v",
            "prompt": "A red ball rolls over a grey floor",
            "images": [RED],
            "aspect_ratio": "16:9",
            "seconds": 1,
        }
        began = time.perf_counter()
        with self.client.post("/v1/videos", json=body, catch_response=True) as created:
            if created.status_code == 429:
                created.success()  # refused as it should be; come back when told to
                time.sleep(float(created.headers.get("retry-after", 1)))
                return
            if not created.ok:
                created.failure(created.text)
                return
            job_id = created.json()["id"]
        video = {"status": "queued"}
        while video["status"] not in ("completed", "failed"):
            time.sleep(POLL_S)
            with self.client.get(f"/v1/videos/{job_id}", name="/v1/videos/{id}", catch_response=True) as looked:
                if looked.ok:
                    video = looked.json()
        failed = RuntimeError(str(video["error"])) if video["status"] == "failed" else None
        self.environment.events.request.fire(
            request_type="JOB",
            name="video",
            response_time=(time.perf_counter() - began) * 1000,
            response_length=0,
            exception=failed,
        )
