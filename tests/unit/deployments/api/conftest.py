"""The HTTP application over real stores, driven through ASGI."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from cluster.config import Config, parse
from cluster.store import open_store
from cluster.store.base import JobStore
from deployments.api.application import create_app
from deployments.api.auth import Keys
from deployments.api.intake import Intake
from deployments.api.reception import Uploads
from deployments.api.services import Services
from deployments.artifacts import ArtifactStore
from deployments.fetch import Fetcher

PROFILE = """
profile: test
topology: monolith
state_dir: {state}
models: [{{name: skyreels-v3-r2v, checkpoint: none, tiny: true}}]
pools: [{{name: Monolith, stages: [text, condition, denoise, decode]}}]
media: {{max_body_nbytes: 300000, max_file_nbytes: 100000, max_image_pixels: 1000000, allow_hosts: {allow}}}
"""


@dataclass
class Edge:
    """An Api replica without its process."""

    client: httpx.AsyncClient
    store: JobStore
    config: Config
    wakes: list[str]
    artifacts: ArtifactStore
    app: FastAPI

    def files(self) -> list[Path]:
        """Every file there is; a folder may go away while one looks, which `rglob` does not forgive."""
        return [Path(folder, name) for folder, _, names in os.walk(self.config.artifacts_root) for name in names]


@asynccontextmanager
async def open_edge(
    folder: Path, allow_hosts: Sequence[str] = (), more: str = "", config: Config | None = None
) -> AsyncIterator[Edge]:
    """The application over stores in `folder`; `more` is added to its configuration, unless another is given."""
    text = PROFILE.format(state=folder / "state", allow=json.dumps(list(allow_hosts)))
    config = config or parse(text + more, "test")
    store = open_store(config.store_url)
    await store.open()
    artifacts = ArtifactStore(config.artifacts_root)
    wakes: list[str] = []

    async def wake() -> None:
        wakes.append("wake")

    intake = Intake(store, artifacts, Fetcher(config.media), config)
    uploads = Uploads(store, artifacts, config)
    keys = Keys(store) if config.auth == "keys" else None
    app = create_app(Services(config, config.registry, store, artifacts, intake, uploads, wake, keys=keys))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        yield Edge(client, store, config, wakes, artifacts, app)
    await store.close()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with open_edge(tmp_path) as edge:
        yield edge
