from __future__ import annotations

from typing import Any

from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from cluster.config import Config, profile, profiles
from cluster.pools import Pool
from cluster.serve_config import serve_config


def deployments(config: Config) -> dict[str, dict[str, Any]]:
    (application,) = serve_config(config)["applications"]
    return {entry["name"]: entry for entry in application["deployments"]}


def pool(**fields: Any) -> dict[str, Any]:
    config = profile("laptop")
    hosted = Pool(name="Denoiser", stages=("denoise",), **fields)
    pools = (config.pools[0], hosted, config.pools[2])
    return deployments(config.model_copy(update={"pools": pools}))["Denoiser"]


def test_every_profile_is_a_config_that_serve_takes() -> None:
    for name in profiles():
        config = profile(name)
        ServeDeploySchema.model_validate(serve_config(config))
        assert deployments(config).keys() == {"Api", "Scheduler", "Courier", *(pool.name for pool in config.pools)}


def test_one_rank_is_the_replica_itself() -> None:
    entry = pool(num_cpus=2, num_gpus=0.5)
    assert entry["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 0.5}
    assert "placement_group_bundles" not in entry


def test_ranks_have_bundles_behind_the_controllers() -> None:
    entry = pool(ranks=4, num_cpus=2, num_gpus=1)
    assert entry["ray_actor_options"] == {"num_cpus": 0.1, "num_gpus": 0}
    assert entry["placement_group_bundles"] == [{"CPU": 0.1}, *[{"CPU": 2, "GPU": 1}] * 4]
    assert entry["placement_group_strategy"] == "STRICT_PACK"


def test_a_replica_that_computes_beside_its_ranks_has_resources_like_theirs() -> None:
    config = profile("monolith")
    monolith = config.pools[0].model_copy(update={"ranks": 2, "num_cpus": 1.0})
    entry = deployments(config.model_copy(update={"pools": (monolith,)}))["Monolith"]
    assert entry["placement_group_bundles"] == [{"CPU": 1}] * 3


def test_ranks_on_several_nodes_have_a_bundle_for_each_with_the_controller_in_the_first() -> None:
    entry = pool(ranks=16, hosts=2, num_cpus=4, num_gpus=1, labels={"a": "b"})
    assert entry["placement_group_bundles"] == [{"CPU": 32.1, "GPU": 8}, {"CPU": 32, "GPU": 8}]
    assert entry["placement_group_strategy"] == "STRICT_SPREAD"
    assert entry["placement_group_bundle_label_selector"] == [{"a": "b"}] * 2
    DeploymentSchema.model_validate(entry)


def test_services_go_where_their_labels_say() -> None:
    entries = deployments(profile("spot-encode"))
    for name in ("Api", "Scheduler", "Courier"):
        assert entries[name]["ray_actor_options"]["label_selector"] == {"skyreels.ai/pool": "edge"}
    assert "label_selector" not in deployments(profile("laptop"))["Api"]["ray_actor_options"]


def test_residents_may_all_be_in_the_replica() -> None:
    assert pool(residents=3)["max_ongoing_requests"] == 6


def test_labels_select_the_node_of_the_replica_and_of_every_bundle() -> None:
    labels = {"skyreels.ai/pool": "dit", "spot": "!yes"}
    alone, shared = pool(labels=labels), pool(labels=labels, ranks=2)
    assert alone["ray_actor_options"]["label_selector"] == labels
    assert shared["placement_group_bundle_label_selector"] == [labels] * 3
    for entry in (alone, shared):
        DeploymentSchema.model_validate(entry)


def test_ranks_of_a_vae_have_bundles_like_those_of_a_denoiser() -> None:
    config = profile("laptop")
    room = config.pools[2].model_copy(update={"ranks": 2})
    entry = deployments(config.model_copy(update={"pools": (*config.pools[:2], room)}))["VaeRoom"]
    assert entry["placement_group_bundles"] == [{"CPU": 0.1}, {"CPU": 1}, {"CPU": 1}]
