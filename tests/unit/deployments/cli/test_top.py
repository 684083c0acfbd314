"""`skyreels top` against an endpoint of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rich.console import Console
from typer.testing import CliRunner

from cluster.monitoring.reading import overview, read
from deployments.cli.client import ServerError
from deployments.cli.main import app
from deployments.cli.top import render
from tests.unit.cluster.monitoring.test_reading import text


@contextmanager
def endpoint(body: str, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_one_look() -> None:
    with endpoint(text(10, 5.0, 4)) as url:
        shown = CliRunner().invoke(app, ["top", "--metrics", url, "--seconds", "0"])
    assert shown.exit_code == 0, shown.output
    for word in ("4 done", "denoise", "7", "Denoiser r1", "1/2", "–"):
        assert word in shown.output


def test_what_is_not_an_endpoint_is_named() -> None:
    with endpoint("no", status=404) as url:
        shown = CliRunner().invoke(app, ["top", "--metrics", url, "--seconds", "0"])
    assert isinstance(shown.exception, ServerError)
    assert "must be the metrics port" in str(shown.exception)


def test_rates_and_troubles_are_shown() -> None:
    console = Console(record=True, width=120)
    console.print(render(overview(read([text(10, 5.0, 4)], 0.0), read([text(30, 9.0, 6, lost=1)], 10.0))))
    shown = console.export_text()
    for word in ("12.0 done/min", "4.00", "40%", "3 s", "in the last 10 s: lost 1"):
        assert word in shown


def test_an_endpoint_that_tells_nothing_yet_is_told() -> None:
    with endpoint("ray_other 1.0\n") as url:
        shown = CliRunner().invoke(app, ["top", "--metrics", url, "--seconds", "0"])
    assert "No metrics of SkyReels here" in shown.output
    assert "stage" not in shown.output
