"""`skyreels cluster` with what the chart really makes, on an API server that fills in the definitions' defaults."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kube import operations
from cluster.kube.client import Cluster
from cluster.kube.kinds import RAY_SERVICE, gpus_of, serve_config_of
from cluster.kube.plan import Effect, read_plan
from cluster.kube.preflight import preflight
from tests.kube.server import KubeServer
from tests.unit.helm.engine import PROFILES, Manifest, cluster_of, rayservice, render, values_of


@pytest.fixture
def server() -> Iterator[KubeServer]:
    with KubeServer() as server:
        server.install("ray.io_rayservices", "ray.io_rayclusters")
        yield server


@pytest.fixture
def cluster(server: KubeServer, tmp_path: Path) -> Iterator[Cluster]:
    path = tmp_path / "kubeconfig"
    path.write_text(server.kubeconfig())
    cluster = Cluster.connect(kubeconfig_path=str(path), backoff_s=0.01)
    yield cluster
    cluster.close()


def edited(service: Manifest, **deployment: Any) -> Manifest:
    """With other settings of the Denoiser's deployment, or the only pool's."""
    service = copy.deepcopy(service)
    config = serve_config_of(service)
    entries = config["applications"][0]["deployments"]
    next(one for one in entries if one["name"] in {"Denoiser", "Monolith"}).update(deployment)
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False)
    return service


@pytest.mark.parametrize("name", PROFILES)
def test_the_plan_says_what_the_operator_will_do(server: KubeServer, cluster: Cluster, name: str) -> None:
    service = rayservice(values_of(name))
    gpus = gpus_of(cluster_of(service))
    first = read_plan(cluster, service)
    assert (first.effect, first.gpus) == (Effect.CREATE, gpus)
    operations.apply(cluster, [service])
    assert read_plan(cluster, service).effect is Effect.NOTHING
    labelled = copy.deepcopy(service)
    labelled["metadata"]["labels"]["helm.sh/chart"] = "skyreels-99.0.0"
    assert read_plan(cluster, labelled).effect is Effect.NOTHING
    assert read_plan(cluster, edited(service, graceful_shutdown_timeout_s=17)).effect is Effect.IN_PLACE
    restarted = read_plan(cluster, edited(service, max_replicas_per_node=2))
    assert restarted.effect is Effect.RESTART
    image = rayservice(values_of(name, {"image": {"tag": "another"}}))
    upgraded = read_plan(cluster, image)
    assert (upgraded.effect, upgraded.gpus) == (Effect.NEW_CLUSTER, gpus)
    assert upgraded.lines[0].startswith(f"NEW CLUSTER: +{gpus} GPUs")


def test_the_chart_is_drained_and_resumed(cluster: Cluster) -> None:
    service = rayservice(values_of("disagg-h200-l40s"))
    operations.apply(cluster, [service])
    name = service["metadata"]["name"]
    assert operations.drain(cluster, name)
    assert read_plan(cluster, service).lines == ("in place: update Scheduler",)
    assert operations.resume(cluster, name)
    assert cluster.get(RAY_SERVICE, name)["spec"]["serveConfigV2"] == service["spec"]["serveConfigV2"]
    operations.apply(cluster, [service])  # the same text is nobody's conflict


def test_preflight_looks_for_what_the_chart_asks_for(cluster: Cluster) -> None:
    checks = {check.name: check for check in preflight(cluster, render(values_of("disagg-h200-l40s")))}
    assert checks["GPUs nvidia.com/gpu"].found.startswith("0 on ready nodes, ")
    assert any(name.startswith("storage class of ") for name in checks)
