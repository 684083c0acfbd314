"""The transport over a real Ray: one cluster for the module, ends in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray._private.internal_api import node_stats

from cluster.config import profile
from cluster.errors import Unavailable
from deployments.artifacts import ArtifactStore
from deployments.transport import DurableTransport
from deployments.transport_ray import RayTransport, open_transport
from tests.integration.system import until
from tests.unit.deployments.transport_contract import TransportContract, latents, same
from tests.unit.deployments.transport_end import End

STORE_NBYTES = 100 * 2**20
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=4,
        object_store_memory=STORE_NBYTES,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path))


KIND = ray.remote(num_cpus=0.1)(End)


@pytest.fixture(scope="module")
def ends(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ray.actor.ActorHandle]]:
    """Two ends over one storage; every test uses keys of its own."""
    folder = str(tmp_path_factory.mktemp("artifacts"))
    both = [KIND.remote(folder) for _ in range(2)]
    yield both
    for end in both:
        ray.kill(end)


def used() -> int:
    """Bytes in the node's object store."""
    node = ray.nodes()[0]
    return node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats.object_store_bytes_used


def idle() -> bool:
    """Nothing is shared. Ray leaves one byte for each value that was asked for after its owner's death."""
    return used() < 100


class TestContract(TransportContract):
    COPIES = 1

    @pytest.fixture
    def pair(self, store: ArtifactStore) -> tuple[RayTransport, RayTransport]:
        return RayTransport(store), RayTransport(store)


@pytest.mark.parametrize("kind", ["text", "condition", "latents"])
def test_between_processes_one_copy(ends, kind):
    here, elsewhere = ends
    handle, hints = ray.get(here.put.remote(f"jobs/a/work/{kind}", kind))
    assert ray.get(here.copies.remote()) == 1
    assert ray.get(elsewhere.get.remote(handle, hints)) == (True, {"object_store": 1})
    assert ray.get(elsewhere.copies.remote()) == 0
    assert ray.get(here.get.remote(handle, hints)) == (True, {"object_store": 1})
    assert ray.get(elsewhere.get.remote(handle, [{}])) == (True, {"file": 1})
    assert ray.get(elsewhere.copies.remote()) == 0


def test_a_hint_may_be_passed_on(ends):
    """As to the ranks of a group: nested, through a process that never reads it."""
    here, elsewhere = ends

    @ray.remote(num_cpus=0.1)
    def pass_on(handle, hints):
        return ray.get(elsewhere.get.remote(handle, hints))

    handle, hints = ray.get(here.put.remote("jobs/pass/work/x", "latents"))
    assert ray.get(pass_on.remote(handle, hints)) == (True, {"object_store": 1})


def test_shared_memory_cannot_be_written(ends):
    here, elsewhere = ends
    handle, hints = ray.get(here.put.remote("jobs/spoil/work/x", "latents"))
    assert "read-only" in ray.get(elsewhere.spoil.remote(handle, hints))


def test_the_producer_dies(tmp_path):
    until("nothing is shared", idle)
    here = KIND.remote(str(tmp_path))
    handle, hints = ray.get(here.put.remote("jobs/dies/work/x", "latents"))
    pid = ray.get(here.pid.remote())
    os.kill(pid, signal.SIGKILL)
    until("the producer is gone", lambda: not Path(f"/proc/{pid}").exists())
    until("its memory is free", idle)
    reader = KIND.remote(str(tmp_path))
    assert ray.get(reader.get.remote(handle, hints)) == (True, {"file": 1})


def test_memory_goes_with_the_last_hint_and_value(ends):
    here, elsewhere = ends
    until("nothing is shared", idle)
    handle, hints = ray.get(here.put.remote("jobs/last/work/x", "latents"))
    assert not idle()
    ray.get(elsewhere.keep.remote(handle, hints))
    del hints
    assert not idle(), "the consumer still maps it"
    ray.get(elsewhere.forget.remote())
    until("the memory is free", idle)


async def test_memory_of_a_put_whose_hint_nobody_took(store):
    until("nothing is shared", idle)
    transport = RayTransport(store)
    handle = await transport.put("jobs/a/work/x", latents())
    assert not idle()
    transport.release("jobs/a/work/x")
    until("the memory is free", idle)
    assert same(await transport.get(handle), latents())


async def test_a_full_object_store_costs_the_hint(store, monkeypatch):
    def full(_: object) -> None:
        raise ray.exceptions.ObjectStoreFullError("no space")

    monkeypatch.setattr(ray, "put", full)
    transport = RayTransport(store)
    handle = await transport.put("jobs/a/work/x", latents())
    assert transport.lend([handle]) == {}
    assert transport.counters.copies.total() == 0
    assert same(await transport.get(handle), latents())


async def test_a_failed_write_keeps_no_memory(tmp_path):
    (tmp_path / "root").write_text("a file where the folder should be")
    transport = RayTransport(ArtifactStore(str(tmp_path / "root")))
    with pytest.raises(Unavailable):
        await transport.put("jobs/a/x", latents())
    until("the memory is free", idle)


def test_the_topology_decides(store):
    monolith = profile("laptop").model_copy(update={"topology": "monolith"})
    assert isinstance(open_transport(monolith, store, cache_nbytes=0), DurableTransport)
    apart = monolith.model_copy(update={"topology": "disaggregated"})
    assert isinstance(open_transport(apart, store, cache_nbytes=0), RayTransport)
