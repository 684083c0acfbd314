"""Webhooks, uploads and event streams of a whole system while the processes that send them are killed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import psutil
import pytest
from standardwebhooks import Webhook
from typer.testing import CliRunner

from deployments.cli.main import app
from loadtest.processes import lives
from tests.integration.system import System, until

pytestmark = pytest.mark.integration


@dataclass
class Inbox:
    """Everything that receivers got; `/held` answers only when it is released."""

    got: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def at(self, path: str) -> list[tuple[str, str, dict[str, str], bytes]]:
        return [one for one in self.got if one[1] == path]


@pytest.fixture(scope="module")
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture(scope="module")
def address(inbox: Inbox, receiver_port: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.partition("?")[0]
            headers = {name.lower(): value for name, value in self.headers.items()}
            inbox.got.append((self.command, path, headers, body))
            if path == "/held":
                inbox.release.wait()
            try:
                self.send_response(500 if path == "/broken" else 204)
                self.end_headers()
            except OSError:  # the sender was killed
                self.close_connection = True

        do_POST = do_PUT = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", receiver_port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{receiver_port}"
    inbox.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class EventSource:
    """Reads a job's stream as browsers do: reconnects behind the last event until the log has ended."""

    system: System
    video_id: str
    ids: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    status: str = ""

    def follow(self) -> None:
        while self.status not in {"completed", "failed"}:
            try:
                self._read()
            except httpx.TransportError:
                until("the edge is back", self.system.whole)

    def _read(self) -> None:
        headers = {"Last-Event-ID": str(self.ids[-1])} if self.ids else {}
        path = f"{self.system.url}/v1/videos/{self.video_id}/events"
        with (
            httpx.Client(timeout=120, trust_env=False) as client,
            client.stream("GET", path, headers=headers) as response,
        ):
            if response.status_code != 200:
                until("the edge is back", self.system.whole)
                return
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.ids.append(int(value))
                elif name == "event":
                    self.kinds.append(value)
                elif name == "data":
                    self.status = json.loads(value).get("status", self.status)


def kill(system: System, deployment: str) -> psutil.Process:
    process = system.replica(deployment)
    process.kill()
    until(f"{deployment} is dead", lambda: not lives(process), 30)
    return process


def said(system: System, *arguments: str) -> str:
    """What the command line prints."""
    done = CliRunner().invoke(app, [*arguments, "--url", system.url], env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return done.output


def test_a_stream_goes_on_over_a_killed_api(deep: System, address: str) -> None:
    job = deep.submit(seconds="2")
    source = EventSource(deep, job["id"])
    reader = threading.Thread(target=source.follow, daemon=True)
    reader.start()
    until("it denoises", lambda: source.kinds.count("stage") > 6)
    seen = len(source.ids)
    kill(deep, "Api")
    reader.join(120)
    assert not reader.is_alive()
    assert source.status == "completed"
    assert source.ids == list(range(1, len(source.ids) + 1))
    assert len(source.ids) > seen


def test_everything_arrives_although_the_courier_is_killed_in_the_middle(
    deep: System, inbox: Inbox, address: str
) -> None:
    hooks = {name: f"http://{address}/{name}" for name in ("held", "good", "broken", "told")}
    wishes = [
        {"webhook_url": hooks["held"]},
        {"webhook_url": hooks["broken"]},
        {"webhook_url": hooks["told"], "upload_url": f"http://{address}/put?signature=abc"},
        *({"webhook_url": hooks["good"]} for _ in range(3)),
    ]
    jobs = [deep.submit(**wish) for wish in wishes]
    until("the first is being sent", lambda: inbox.at("/held"))
    kill(deep, "Courier")
    for job in jobs:
        deep.finish(job["id"])
    until("the good ones have theirs", lambda: len({one[2]["webhook-id"] for one in inbox.at("/good")}) == 3)
    assert len(inbox.at("/broken")) > 0
    until("it is sent again", lambda: len(inbox.at("/held")) >= 2)
    inbox.release.set()

    def states() -> Counter[str]:
        found = deep.client.get("/v1/deliveries", params={"limit": 100}).json()["data"]
        return Counter(item["state"] for item in found if item["url"] != hooks["broken"])

    until("all but the broken one are delivered", lambda: states() == {"delivered": 6})
    secret = deep.client.get("/v1/webhooks/secret").json()["secret"]
    told: dict[str, set[str]] = {}
    for method, path, headers, body in inbox.got:
        if method == "POST":
            event = Webhook(secret).verify(body, headers)
            assert event["type"] == "video.completed"
            told.setdefault(headers["webhook-id"], set()).add(event["data"]["id"])
            assert path != "/told" or inbox.at("/put")
    assert {next(iter(ids)) for ids in told.values()} == {job["id"] for job in jobs}
    assert all(len(ids) == 1 for ids in told.values())
    order = [path for _, path, _, _ in inbox.got if path in {"/put", "/told"}]
    assert order.index("/put") < order.index("/told")
    (*_, put) = inbox.at("/put")
    assert hashlib.sha256(put[3]).hexdigest() == deep.digest(jobs[2]["id"])
    assert put[2]["content-type"] == "video/mp4"
    assert said(deep, "webhooks", "secret").strip() == secret
    assert next(iter(told)) in said(deep, "deliveries", "list", "--state", "delivered", "--limit", "50")
    assert "pending" in said(deep, "deliveries", "resend", next(iter(told)))
    until("they are counted", lambda: deep.metric("ray_skyreels_deliveries_total", outcome="delivered"))
