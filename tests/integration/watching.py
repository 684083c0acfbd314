"""A collector of spans and a Prometheus, as an operator would point at the system: both real."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from loadtest.local import free_ports
from tests.integration.system import until

CHART = Path(__file__).parents[2] / "helm/skyreels"
SCRAPE = "2s"


@dataclass(frozen=True)
class Span:
    """One span as it arrived; ids in hex digits."""

    trace: str
    id: str
    parent: str
    name: str
    role: str
    began_ns: int
    ended_ns: int
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Collector:
    """Takes spans by OTLP over HTTP, and webhooks at any other path."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)
    webhooks: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            resource = {item.key: item.value.string_value for item in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    values = {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}
                    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
                    times = span.start_time_unix_nano, span.end_time_unix_nano
                    failed = span.status.code == span.status.STATUS_CODE_ERROR
                    self.spans.append(Span(*ids, span.name, resource["skyreels.role"], *times, failed, values))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                collector.take(body)
            else:
                collector.webhooks += 1
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def get(self, path: str, **params: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=params, trust_env=False, timeout=30)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def since(self, began: float, expr: str) -> list[dict[str, Any]]:
        """The series that an expression had at any time since then, with their values."""
        found: list[dict[str, Any]] = self.get(
            "query_range", query=expr, start=str(began), end=str(time.time()), step=SCRAPE
        )["result"]
        return found


@contextmanager
def scraping(folder: Path, target: str, rules: Path) -> Iterator[Prometheus]:
    """Debian's Prometheus, which scrapes the target and evaluates copies of the rules, both every two seconds."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs Prometheus: apt-get install prometheus")
    folder.mkdir()
    for path in rules.glob("*.yaml"):
        groups = yaml.safe_load(path.read_text())
        for group in groups["groups"]:
            group["interval"] = SCRAPE
        (folder / path.name).write_text(yaml.safe_dump(groups))
    config = {
        "global": {"scrape_interval": SCRAPE, "evaluation_interval": SCRAPE},
        "rule_files": [str(folder / path.name) for path in rules.glob("*.yaml")],
        "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    (port,) = free_ports(1)
    command = [
        binary, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Prometheus(f"http://127.0.0.1:{port}")

    def ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return httpx.get(f"{server.url}/-/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        until("Prometheus is ready", ready)
        yield server
    finally:
        process.terminate()
        process.wait(30)
