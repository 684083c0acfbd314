"""What an installation needs, looked at on servers that have it and that lack it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError
from cluster.kube.client import Cluster
from cluster.kube.preflight import Check, demand, preflight
from tests.kube.installation import group, ray_service
from tests.kube.server import KubeServer

CLAIM = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": {}}
NEEDS = (ray_service(group("dit", 2, 4, gpus=8)), CLAIM)


def operator(image: str = "quay.io/kuberay/operator:v1.7.0", available: int = 1) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "kuberay-operator"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kuberay-operator", "namespace": "kuberay", "labels": labels},
        "spec": {"template": {"spec": {"containers": [{"name": "o", "image": image}]}}},
        "status": {"availableReplicas": available},
    }


def node(name: str, gpus: int, *, ready: bool = True, cordoned: bool = False) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"unschedulable": cordoned},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def storage(name: str, default: bool = False) -> dict[str, Any]:
    notes = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name, "annotations": notes}}


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_cluster_that_has_everything_passes(server: KubeServer, cluster: Cluster) -> None:
    for manifest in (operator(), node("a", 8), node("b", 8), storage("fast", default=True)):
        server.create(manifest)
    checks = preflight(cluster, NEEDS)
    assert [check for check in checks if check.passed is not True] == []
    assert {"Kubernetes", "KubeRay", "CRD rayservices.ray.io", "GPUs nvidia.com/gpu"} <= by_name(checks).keys()
    assert all(not check.remedy for check in checks)
    demand(checks)


def test_an_empty_cluster_fails_with_a_remedy_in_each_line(tmp_path: Path) -> None:
    with KubeServer(version="v1.27.3-gke.100") as server:
        path = tmp_path / "kubeconfig"
        path.write_text(server.kubeconfig())
        server.denied = {("create", "rayservices"), ("patch", "rayclusters")}
        for manifest in (node("a", 8), node("broken", 8, ready=False), node("cordoned", 8, cordoned=True)):
            server.create(manifest)
        checks = preflight(Cluster.connect(kubeconfig_path=str(path), backoff_s=0.01), NEEDS)
    failed = {check.name: check for check in checks if check.passed is False}
    assert failed["Kubernetes"].remedy == "upgrade the cluster to 1.29 or later"
    assert failed["CRD rayclusters.ray.io"].found == "missing"
    assert failed["KubeRay"].found == "no operator"
    assert failed["GPUs nvidia.com/gpu"].found == "8 on ready nodes, 16 needed from the start"
    assert failed["storage class of models"].found == "no default"
    assert failed["rights on rayservices.ray.io"].found == "may not create"
    assert failed["rights on rayclusters.ray.io"].remedy.startswith("grant patch on rayclusters.ray.io in video")
    assert all(check.remedy for check in failed.values())
    assert by_name(checks)["rights on pods"].passed
    with pytest.raises(ConfigError, match=rf"{len(failed)} of {len(checks)} checks failed: Kubernetes, "):
        demand(checks)


def test_what_may_not_be_looked_at_is_no_failure(server: KubeServer, cluster: Cluster) -> None:
    server.denied = {("*", "nodes"), ("*", "customresourcedefinitions"), ("list", "deployments")}
    checks = by_name(preflight(cluster, NEEDS[:1]))
    for name in ("KubeRay", "CRD rayservices.ray.io", "GPUs nvidia.com/gpu"):
        assert checks[name].passed is None
        assert "administrator" in checks[name].remedy
    demand(list(checks.values()))


@pytest.mark.parametrize(
    ("manifest", "passed", "found"),
    [
        (operator("kuberay:v1.3.2"), False, "kuberay:v1.3.2 in kuberay"),
        (operator(available=0), False, "not available"),
        (operator("mirror/kuberay@sha256:abc"), None, "version not told"),
        (operator("kuberay:1.10.0"), True, "kuberay:1.10.0"),
    ],
)
def test_the_operator(
    server: KubeServer, cluster: Cluster, manifest: dict[str, Any], passed: bool | None, found: str
) -> None:
    server.create(manifest)
    check = by_name(preflight(cluster))["KubeRay"]
    assert check.passed is passed
    assert found in check.found


@pytest.mark.parametrize(
    ("wanted", "passed", "found"),
    [("fast", True, "fast"), ("gold", False, "gold does not exist"), ("", True, "a volume that exists")],
)
def test_a_named_storage_class(server: KubeServer, cluster: Cluster, wanted: str, passed: bool, found: str) -> None:
    server.create(storage("fast"))
    check = by_name(preflight(cluster, [CLAIM | {"spec": {"storageClassName": wanted}}]))["storage class of models"]
    assert (check.passed, found in check.found) == (passed, True)
    assert passed or "fast" in check.remedy
