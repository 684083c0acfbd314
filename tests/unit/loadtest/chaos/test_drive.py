"""What a driver notes of a server that shows a tenant's job to another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from loadtest.chaos.client import Client, Offer
from loadtest.chaos.drive import Driver
from loadtest.chaos.evidence import JobRecord
from loadtest.chaos.scenario import Fate, JobPlan

PLAN = JobPlan(0, 0, "A ball", 7, 1, 1, Fate.FINISH, 0.0, None, False, True, "once")
JOB = b'{"id": "video_1", "status": "completed", "progress": 100, "phase": "done", "stages": [], "results": []}'


@contextmanager
def server(strangers: int) -> Iterator[str]:
    """One completed job of the tenant with key "mine"; others get the status `strangers`."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            mine = self.headers["authorization"] == "Bearer mine"
            self.send_response(200 if mine else strangers)
            self.send_header("content-length", str(len(JOB)))
            self.end_headers()
            self.wfile.write(JOB)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.mark.parametrize(("strangers", "oddities"), [(404, 0), (200, 5), (403, 5)])
def test_a_foreign_job_must_not_exist(strangers: int, oddities: int) -> None:
    async def drive() -> JobRecord:
        client = Client(url, ("mine", "theirs"))
        record = JobRecord(PLAN, 0)
        await Driver(client, Offer(frozenset(), frozenset()), None).run(PLAN, record)
        await client.close()
        return record

    with server(strangers) as url:
        record = asyncio.run(drive())
    assert record.status == "completed"
    assert len([oddity for oddity in record.oddities if f"of another tenant gave {strangers}" in oddity]) == oddities
