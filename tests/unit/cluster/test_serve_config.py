from __future__ import annotations

import json
from typing import Any

from ray.serve.schema import DeploymentSchema, ServeDeploySchema

from cluster.config import Config, parse, profile, profiles
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
    room = config.pools[2].model_copy(update={"ranks": 2, "stages": ("condition", "decode")})
    entry = deployments(config.model_copy(update={"pools": (*config.pools[:2], room)}))["VaeRoom"]
    assert entry["placement_group_bundles"] == [{"CPU": 0.1}, {"CPU": 1}, {"CPU": 1}]


def scaled(**fields: Any) -> dict[str, Any]:
    """The application with a scaled Denoiser."""
    config = profile("laptop")
    hosted = Pool(name="Denoiser", stages=("denoise",), **{"min_replicas": 0, "max_replicas": 4, **fields})
    config = config.model_copy(update={"pools": (config.pools[0], hosted, config.pools[2])})
    body = serve_config(config)
    ServeDeploySchema.model_validate(body)
    application: dict[str, Any] = body["applications"][0]
    return application


def entry_of(application: dict[str, Any], name: str) -> dict[str, Any]:
    (entry,) = (entry for entry in application["deployments"] if entry["name"] == name)
    return dict(entry)


def test_a_scaled_pool_has_bounds_and_delays_instead_of_a_size() -> None:
    entry = entry_of(scaled(downscale_delay_s=7), "Denoiser")
    assert "num_replicas" not in entry
    assert entry["autoscaling_config"] == {
        "min_replicas": 0,
        "max_replicas": 4,
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 7.0,
        "downscale_to_zero_delay_s": 7.0,
    }
    assert entry_of(scaled(), "TextEncoder")["num_replicas"] == 1


def test_the_policy_knows_what_replicas_take_on_and_who_feeds_whom() -> None:
    policy = scaled(residents=3, ranks=2)["autoscaling_policy"]
    assert policy["policy_function"] == "deployments.autoscaler:StagePolicy"
    told = policy["policy_kwargs"]
    (denoiser,) = (pool for pool in told["pools"] if pool["name"] == "Denoiser")
    assert denoiser == {
        "name": "Denoiser", "slots": {"denoise": 3}, "lanes": {"denoise": 1}, "devices": {"denoise": 2}
    }  # fmt: skip
    assert ["denoise", "decode"] in told["feeds"]
    assert ["text", "denoise"] in told["feeds"]
    assert "autoscaling_policy" not in serve_config(profile("laptop"))["applications"][0]


def test_a_change_of_size_makes_no_replica_new() -> None:
    """Serve makes all replicas new when the arguments or the policy change."""
    small, large = scaled(), scaled(min_replicas=2, max_replicas=9, upscale_delay_s=3, downscale_delay_s=30)
    assert (small["args"], small["autoscaling_policy"]) == (large["args"], large["autoscaling_policy"])
    one, two = (
        serve_config(
            profile("laptop").model_copy(
                update={"pools": tuple(pool.model_copy(update={"replicas": n}) for pool in profile("laptop").pools)}
            )
        )["applications"][0]
        for n in (1, 2)
    )
    assert one["args"] == two["args"]
    assert scaled()["args"] != one["args"]  # scaled or not is what it is


def test_the_arguments_are_a_config_again() -> None:
    args = scaled()["args"]
    again = parse(json.dumps(args), "args")
    assert [pool.autoscaled for pool in again.pools] == [False, True, False]
