"""The systems that the tests share: starting one costs most of a test's time.

Whoever breaks a system leaves it whole again, so tests may come in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.config import profile
from components.tiny import TinySizes, write_r2v
from loadtest.local import free_ports
from tests.integration.system import System, rank_processes, until

DRAIN_S = 2.0
HASTE: dict[str, Any] = {
    "scheduler": {"heartbeat_s": 0.2, "lease_ttl_s": 4.0, "leader_ttl_s": 2.0},
    "denoise": {"snapshot_s": 0.5, "step_floor_s": 3.0},
}


def laptop(denoiser: dict[str, Any] | None = None) -> dict[str, Any]:
    """Topology and pools of the laptop profile, with changes to the denoiser's pool."""
    config = profile("laptop")
    pools = [pool.model_dump(mode="json", exclude_unset=True) for pool in config.pools]
    changed = [pool | (denoiser or {}) if "denoise" in pool["stages"] else pool for pool in pools]
    return {"topology": config.topology, "pools": changed}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the checkpoints and the systems' own folders; the deep checkpoint leaves time to be killed in."""
    folder = tmp_path_factory.mktemp("systems")
    write_r2v(folder / "tiny-r2v")
    write_r2v(folder / "deep-r2v", sizes=TinySizes(layers=40))
    return folder


@pytest.fixture(scope="module")
def bare_ray(folder: Path) -> Iterator[Path]:
    """A small Ray of this process; yields the folder with the checkpoints."""
    ray.init(
        num_cpus=8,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        configure_logging=False,
    )
    yield folder
    ray.shutdown()
    until("no rank is left", lambda: not rank_processes())


@contextmanager
def started(system: System) -> Iterator[System]:
    """Runs a system. Its end is a power cut, which is quicker than a clean stop and does it no harm."""
    try:
        yield system.start()
    finally:
        system.kill()
        system.close()


@pytest.fixture(scope="session")
def system(folder: Path) -> Iterator[System]:
    """The laptop profile."""
    with started(System(folder / "laptop", overrides=laptop())) as system:
        yield system


@pytest.fixture(scope="session")
def receiver_port() -> int:
    """Where a test may listen for what `deep` delivers."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def deep(folder: Path, receiver_port: int) -> Iterator[System]:
    """The laptop profile with a deep model, quick leases and deliveries, frequent snapshots, and a brief drain."""
    delivery = {"lease_s": 2.0, "backoff_s": 0.2, "backoff_max_s": 0.5, "max_attempts": 1000}
    media = {"allow_hosts": [f"127.0.0.1:{receiver_port}"]}
    overrides = {**laptop({"drain_s": DRAIN_S}), **HASTE, "delivery": delivery, "media": media}
    with started(System(folder / "deep", checkpoint="deep-r2v", overrides=overrides)) as system:
        yield system
