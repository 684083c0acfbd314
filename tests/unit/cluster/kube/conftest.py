from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.kube.client import Cluster
from tests.kube.server import KubeServer

CRDS = ("ray.io_rayservices", "ray.io_rayclusters")


@pytest.fixture
def server() -> Iterator[KubeServer]:
    with KubeServer() as server:
        server.install(*CRDS)
        yield server


@pytest.fixture
def cluster(server: KubeServer, tmp_path: Path) -> Iterator[Cluster]:
    """A client with short patience."""
    path = tmp_path / "kubeconfig"
    path.write_text(server.kubeconfig())
    cluster = Cluster.connect(kubeconfig_path=str(path), timeout_s=2.0, backoff_s=0.01)
    yield cluster
    cluster.close()
