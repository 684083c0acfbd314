"""The only wiring: a `Config` becomes a Serve application. `deployments.app:build` is its import string everywhere.

No postponed annotations here: Serve reads the builder's parameter type to validate the arguments.
"""

from ray import serve
from ray.serve import Application

from cluster.config import Config
from deployments.api.ingress import Api
from deployments.courier import Courier
from deployments.scheduler import Scheduler
from deployments.stage import StageReplica


def build(config: Config) -> Application:
    """One deployment per pool, the Scheduler over them, the Courier beside it, the Api in front.

    Resources, replica counts and drain times come with the Serve config (`cluster.serve_config`).
    """
    handles: dict[str, Application] = {}
    for pool in config.pools:
        replica = serve.deployment(StageReplica, name=pool.name).bind(config, pool)
        handles |= dict.fromkeys(pool.stages, replica)
    scheduler = serve.deployment(Scheduler, name="Scheduler").bind(config, handles)
    courier = serve.deployment(Courier, name="Courier").bind(config)
    return serve.deployment(Api, name="Api").bind(config, scheduler, courier)
