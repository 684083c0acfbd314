"""A group over two nodes: every host has its share of the ranks, and they meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.config import Config
from cluster.pools import Pool
from cluster.serve_config import serve_config
from deployments.group.remote import RayRanks
from tests.unit.deployments.group.jobs import config

pytestmark = [pytest.mark.integration, pytest.mark.stress]
NODE = {"num_cpus": 3, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@pytest.fixture
def two_nodes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path_factory.mktemp("r")))
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        cluster.add_node(**NODE)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


@ray.remote(num_cpus=0.1)
class Replica:
    """What the replica of a pool is to its ranks: the process in whose placement group they are."""

    async def nodes(self, config: Config, pool: Pool) -> tuple[str, list[str]]:
        """Its own node, and that of each rank, after all of them have met."""
        ranks = RayRanks(config, pool)
        await ranks.start(lambda: None)
        try:
            return _node(), [await actor.__ray_call__.remote(_node) for actor in ranks._actors]
        finally:
            await ranks.stop()


def _node(*_: Any) -> str:
    return str(ray.get_runtime_context().get_node_id())


def test_ranks_fill_host_after_host_and_meet(two_nodes: None, tmp_path: Path) -> None:
    settings = config(tmp_path / "tiny", tmp_path)
    pool = Pool(name="Denoiser", stages=("denoise",), ranks=4, hosts=2)
    pools = [pool if "denoise" in one.stages else one for one in settings.pools]
    settings = settings.model_copy(update={"pools": tuple(pools)})
    (application,) = serve_config(settings)["applications"]
    (entry,) = [one for one in application["deployments"] if one["name"] == "Denoiser"]
    group = placement_group(entry["placement_group_bundles"], strategy=entry["placement_group_strategy"])
    assert group.wait(60)
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    replica = Replica.options(scheduling_strategy=place).remote()
    own, nodes = ray.get(replica.nodes.remote(settings, pool), timeout=240)
    assert nodes[:2] == [own] * 2
    assert len(set(nodes[2:])) == 1 and nodes[2] != own
