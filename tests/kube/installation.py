"""A RayService as the chart makes it, small; and what its operator would do."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from cluster.config import profile
from cluster.serve_config import serve_config
from tests.kube.server import KubeServer

Manifest = dict[str, Any]
NAME = "studio"
LIVE = f"{NAME}-abcde"


def group(name: str, least: int, most: int, *, gpus: int = 0, hosts: int = 1) -> Manifest:
    limits: dict[str, Any] = {"cpu": "8", **({"nvidia.com/gpu": gpus} if gpus else {})}
    container = {"name": "ray-worker", "image": "skyreels:1", "resources": {"limits": limits}}
    return {
        "groupName": name,
        "minReplicas": least,
        "maxReplicas": most,
        "numOfHosts": hosts,
        "rayStartParams": {},
        "template": {"spec": {"containers": [container]}},
    }


def ray_service(*groups: Manifest, **spec: Any) -> Manifest:
    head: Manifest = {"containers": [{"name": "ray-head", "image": "skyreels:1"}]}
    made: Manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/instance": NAME}},
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve_config(profile("laptop")), sort_keys=False),
            "rayClusterConfig": {
                "rayVersion": "2.60.0",
                "headGroupSpec": {"rayStartParams": {}, "template": {"spec": head}},
                "workerGroupSpecs": list(groups or (group("encode", 1, 4), group("dit", 1, 4, gpus=8))),
            },
            **spec,
        },
    }
    return copy.deepcopy(made)


def ray_cluster(service: Manifest, name: str = LIVE) -> Manifest:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name, "labels": {"ray.io/originated-from-cr-name": NAME}},
        "spec": service["spec"]["rayClusterConfig"],
    }


def serving(server: KubeServer, service: Manifest | None = None) -> Manifest:
    """An installation whose operator has done its work."""
    service = service or ray_service()
    server.create(service)
    server.create(ray_cluster(service))
    ready(server, service)
    return service


def ready(server: KubeServer, service: Manifest, **status: Any) -> None:
    """The operator says that the service serves its newest spec."""
    generation = server.read(service)["metadata"]["generation"]
    deployments = {"Api": {"status": "HEALTHY"}, "Denoiser": {"status": "UPDATING", "message": "1 of 2"}}
    application = {"status": "RUNNING", "serveDeploymentStatuses": deployments}
    server.edit(
        service,
        {
            "status": {
                "observedGeneration": generation,
                "conditions": [
                    {
                        "type": "Ready", "status": "True", "reason": "NonZeroServeEndpoints", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z",
                    }
                ],
                "activeServiceStatus": {"rayClusterName": LIVE, "applicationStatuses": {"skyreels": application}},
                **status,
            }
        },
        manager="kuberay-operator",
    )  # fmt: skip
