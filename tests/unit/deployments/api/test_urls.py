"""Reference images behind URLs, served by a real HTTP server on this machine that the test's config allows."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.deployments.api.conftest import Edge, open_edge
from tests.unit.deployments.api.test_videos import png


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "ball.png").write_bytes(png(18, 32))
    (folder / "page.png").write_text("<html>not an image</html>")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
async def allowing(tmp_path: Path, server: str) -> AsyncIterator[Edge]:
    async with open_edge(tmp_path, allow_hosts=[server]) as edge:
        yield edge


async def test_an_allowed_url_is_fetched(allowing: Edge, server: str) -> None:
    request = {"prompt": "A ball", "images": [f"http://{server}/ball.png"]}
    response = await allowing.client.post("/v1/videos", json=request)
    assert response.status_code == 200, response.text
    assert response.json()["size"] == "64x112"


@pytest.mark.parametrize("path", ["missing.png", "page.png"])
async def test_what_comes_back_must_be_an_image(allowing: Edge, server: str, path: str) -> None:
    request = {"prompt": "A ball", "images": [f"http://{server}/{path}"]}
    response = await allowing.client.post("/v1/videos", json=request)
    assert response.status_code == 400
    assert allowing.files() == []


async def test_without_the_allowance_the_same_url_is_internal(edge: Edge, server: str) -> None:
    response = await edge.client.post("/v1/videos", json={"prompt": "A", "images": [f"http://{server}/ball.png"]})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_url"
