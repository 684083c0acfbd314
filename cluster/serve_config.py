"""The Serve config (`ServeDeploySchema`) of an installation, generated from its `Config`.

What may change live (replica counts and bounds, concurrency, drain) stands in the deployments; what a replica is stands
in the builder's arguments. Serve makes every replica new when the arguments or the autoscaling policy's change, so
neither holds a size.
"""

from __future__ import annotations

from typing import Any

from cluster.config import Api, Config, Deliveries, Scheduler
from cluster.pools import Pool
from cluster.wiring import feeds

APPLICATION = "skyreels"
IMPORT_PATH = "deployments.app:build"
POLICY_PATH = "deployments.autoscaler:StagePolicy"
RUNNING = {"paused": False}  # of the Scheduler; true while an operator drains the installation
HEALTH_PERIOD_S = 2.0
REQUESTS = 100  # at once in one Api replica, beside its event streams
CONTROLLER_CPUS = 0.1  # a replica that only orders its ranks' work


def serve_config(config: Config) -> dict[str, Any]:
    """The declarative config that Serve's REST API, `serve deploy` and a RayService take."""
    ongoing = REQUESTS + config.api.max_streams  # an open event stream is a request to Serve
    scaled = any(pool.autoscaled for pool in config.pools)
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": config.api.host, "port": config.api.port},
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": _identity(config),
                **({"autoscaling_policy": _policy(config)} if scaled else {}),
                "deployments": [
                    _service("Api", config.api.replicas, ongoing, config.api, drain_s=20),
                    _service("Scheduler", 1, 100, config.scheduler, drain_s=5) | {"user_config": dict(RUNNING)},
                    _service("Courier", config.delivery.replicas, 100, config.delivery, drain_s=5),
                    *(_pool(pool) for pool in config.pools),
                ],
            }
        ],
    }


def _identity(config: Config) -> dict[str, Any]:
    """The config without sizes. Of a scaled pool it says that it is scaled, not how far."""
    args = config.model_dump(mode="json", exclude={"kubernetes"})
    for section in (args["api"], args["delivery"], *args["pools"]):
        del section["replicas"]
    for pool, entry in zip(config.pools, args["pools"], strict=True):
        for name in ("min_replicas", "max_replicas", "upscale_delay_s", "downscale_delay_s"):
            del entry[name]
        if pool.autoscaled:
            entry |= {"min_replicas": 0, "max_replicas": 1}
    return args


def _policy(config: Config) -> dict[str, Any]:
    """The application's autoscaling policy. Bounds and delays are those of the deployments."""
    return {
        "policy_function": POLICY_PATH,
        "policy_kwargs": {
            "store_url": config.store_url,
            "backlog_s": config.autoscale.backlog_s,
            "period_s": config.autoscale.period_s,
            "worker_ttl_s": config.scheduler.lease_ttl_s,
            "pools": [
                {
                    "name": pool.name,
                    "slots": {stage: pool.slots_of(stage) for stage in pool.stages},
                    "lanes": {stage: pool.lanes_of(stage) for stage in pool.stages},
                    "devices": {stage: pool.devices_of(stage) for stage in pool.stages},
                }
                for pool in config.pools
            ],
            "feeds": [
                list(feed)
                for feed in feeds(
                    {model.graph for model in config.registry.models.values()}, extended=config.extends_prompts
                )
            ],
        },
    }


def _deployment(
    name: str, replicas: int, ongoing: int, num_cpus: float, num_gpus: float, *, drain_s: float
) -> dict[str, Any]:
    return {
        "name": name,
        "num_replicas": replicas,
        "max_ongoing_requests": ongoing,
        "graceful_shutdown_timeout_s": drain_s,
        "health_check_period_s": HEALTH_PERIOD_S,
        "ray_actor_options": {"num_cpus": num_cpus, "num_gpus": num_gpus},
    }


def _service(
    name: str, replicas: int, ongoing: int, section: Api | Scheduler | Deliveries, *, drain_s: float
) -> dict[str, Any]:
    deployment = _deployment(name, replicas, ongoing, section.num_cpus, 0, drain_s=drain_s)
    if section.labels:
        deployment["ray_actor_options"]["label_selector"] = dict(section.labels)
    return deployment


def _pool(pool: Pool) -> dict[str, Any]:
    # Twice the slots: a call may wait inside the replica for a slot that the store already counts as free.
    ongoing = 2 * sum(pool.slots_of(stage) for stage in pool.stages)
    num_cpus, num_gpus = (CONTROLLER_CPUS, 0) if pool.controls_only else (pool.num_cpus, pool.num_gpus)
    deployment = _deployment(pool.name, pool.replicas, ongoing, num_cpus, num_gpus, drain_s=pool.drain_s)
    if pool.autoscaled:
        del deployment["num_replicas"]
        deployment["autoscaling_config"] = {
            "min_replicas": pool.least,
            "max_replicas": pool.most,
            "upscale_delay_s": pool.upscale_delay_s,
            "downscale_delay_s": pool.downscale_delay_s,
            "downscale_to_zero_delay_s": pool.downscale_delay_s,
        }
    labels = dict(pool.labels)
    if pool.ranks > 1:
        deployment["placement_group_bundles"] = bundles = _bundles(pool, num_cpus, num_gpus)
        deployment["placement_group_strategy"] = "STRICT_PACK" if pool.hosts == 1 else "STRICT_SPREAD"
        if labels:
            deployment["placement_group_bundle_label_selector"] = [labels] * len(bundles)
    elif labels:
        deployment["ray_actor_options"]["label_selector"] = labels
    return deployment


def _bundles(pool: Pool, num_cpus: float, num_gpus: float) -> list[dict[str, float]]:
    """Where the replica and its ranks sit; `Pool.bundle_of` tells which rank is where.

    On one node the replica has bundle 0 and each rank one of its own. On several, each bundle is a node and the
    replica sits in the first: Ray's autoscaler starts hosts for a bundle each, and a whole replica of the group only
    when all are asked for.
    """
    if pool.hosts == 1:
        return [_bundle(num_cpus, num_gpus), *[_bundle(pool.num_cpus, pool.num_gpus)] * pool.ranks]
    ranks = pool.ranks // pool.hosts
    first = _bundle(num_cpus + ranks * pool.num_cpus, ranks * pool.num_gpus)
    return [first, *[_bundle(ranks * pool.num_cpus, ranks * pool.num_gpus)] * (pool.hosts - 1)]


def _bundle(num_cpus: float, num_gpus: float) -> dict[str, float]:
    return {"CPU": num_cpus} | ({"GPU": num_gpus} if num_gpus else {})
