"""What the KubeRay operator refuses beyond the schema of a RayService, as rules over plain data.

Source of the rules: ray-project/kuberay v1.7.0, `ray-operator/controllers/ray/utils/validation.go`; that the head has a
port named `serve` is from `common/service.go`. A refused RayService is not installed; it gets an event and waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
START_RESOURCES = {"num-cpus", "num-gpus", "memory", "resources"}
STRATEGIES = {"NewCluster", "NewClusterWithIncrementalUpgrade", "None"}


def violations(service: Manifest) -> list[str]:
    """Every rule that the manifest breaks, in words."""
    return [*_metadata(service["metadata"]), *_upgrade(service["spec"]), *_cluster(service)]


def _metadata(metadata: Manifest) -> Iterator[str]:
    name = metadata["name"]
    if len(name) > 47:
        yield "name: more than 47 characters"
    if not NAME.fullmatch(name):
        yield "name: no DNS-1035 label"
    timeout = metadata.get("annotations", {}).get("ray.io/initializing-timeout")
    if timeout and not re.fullmatch(r"[1-9]\d*|([1-9]\d*(\.\d+)?(ms|s|m|h))+", timeout):
        yield "ray.io/initializing-timeout: no positive duration"


def _upgrade(spec: Manifest) -> Iterator[str]:
    strategy = spec.get("upgradeStrategy", {})
    kind = strategy.get("type", "NewCluster")
    if kind not in STRATEGIES:
        yield "upgradeStrategy.type: unknown"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds: negative"
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
        yield "upgradeStrategy: incremental upgrades need the autoscaler"
    options = strategy.get("clusterUpgradeOptions")
    if options is None:
        yield "clusterUpgradeOptions: missing"
        return
    if not 0 <= options.get("maxSurgePercent", 100) <= 100:
        yield "maxSurgePercent: not from 0 to 100"
    if not 0 <= options.get("stepSizePercent", -1) <= 100:
        yield "stepSizePercent: not from 0 to 100"
    if options.get("intervalSeconds", 0) <= 0:
        yield "intervalSeconds: not above 0"
    if not options.get("gatewayClassName"):
        yield "gatewayClassName: missing"


def _cluster(service: Manifest) -> Iterator[str]:
    cluster = service["spec"]["rayClusterConfig"]
    head, workers = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    if head.get("headService", {}).get("metadata", {}).get("name"):
        yield "headService.name: set"
    yield from _group("head", head)
    for worker in workers:
        yield from _group(worker["groupName"], worker)
        yield from _worker(cluster, worker)
    if len({worker["groupName"] for worker in workers}) != len(workers):
        yield "workerGroupSpecs: names are not unique"
    if not head["template"]["spec"].get("containers"):
        return
    container = head["template"]["spec"]["containers"][0]
    if not any(re.fullmatch(r"serve(-.*)?", port["name"]) for port in container.get("ports", [])):
        yield "head: no port serve"
    yield from _redis(service["metadata"].get("annotations", {}), cluster, container)
    yield from _autoscaler(cluster, [head, *workers], container)
    yield from _auth(cluster)


def _group(name: str, group: Manifest) -> Iterator[str]:
    start = group.get("rayStartParams", {})
    if not group["template"]["spec"].get("containers"):
        yield f"{name}: no container"
    if group.get("resources") and START_RESOURCES & set(start):
        yield f"{name}: resources both in rayStartParams and in resources"
    if "labels" in start:
        yield f"{name}: labels in rayStartParams"
    for key, value in group.get("labels", {}).items():
        if not LABEL_KEY.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            yield f"{name}: label {key}={value} is malformed"


def _worker(cluster: Manifest, worker: Manifest) -> Iterator[str]:
    name = worker["groupName"]
    if worker.get("minReplicas", 0) > worker.get("maxReplicas", 2**31 - 1):
        yield f"{name}: minReplicas above maxReplicas"
    if worker.get("suspend"):
        yield f"{name}: suspended"
    if not _second(cluster) and {"idleTimeoutSeconds", "priority"} & set(worker):
        yield f"{name}: idleTimeoutSeconds and priority need autoscaler v2"


def _redis(annotations: Manifest, cluster: Manifest, container: Manifest) -> Iterator[str]:
    variables = {one["name"] for one in container.get("env", [])}
    start = cluster["headGroupSpec"].get("rayStartParams", {})
    if "gcsFaultToleranceOptions" not in cluster:
        if "RAY_REDIS_ADDRESS" in variables and annotations.get("ray.io/ft-enabled") != "true":
            yield "RAY_REDIS_ADDRESS: set without gcsFaultToleranceOptions"
    else:
        if {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD"} & variables or "redis-password" in start:
            yield "redis: set beside gcsFaultToleranceOptions"
        if {"ray.io/ft-enabled", "ray.io/external-storage-namespace"} & set(annotations):
            yield "annotations: fault tolerance is set twice"
    if "REDIS_USERNAME" in variables or "redis-username" in start:
        yield "redis-username: not in gcsFaultToleranceOptions"


def _second(cluster: Manifest) -> bool:
    options = cluster.get("autoscalerOptions", {})
    return bool(cluster.get("enableInTreeAutoscaling")) and options.get("version") == "v2"


def _autoscaler(cluster: Manifest, groups: list[Manifest], container: Manifest) -> Iterator[str]:
    variables = {one["name"]: one.get("value") for one in container.get("env", [])}
    enabled = cluster.get("enableInTreeAutoscaling")
    if not enabled and variables.get("RAY_enable_autoscaler_v2") in {"1", "true"}:
        yield "RAY_enable_autoscaler_v2: the autoscaler is off"
    if enabled and "version" in cluster.get("autoscalerOptions", {}) and "RAY_enable_autoscaler_v2" in variables:
        yield "RAY_enable_autoscaler_v2: set beside autoscalerOptions.version"
    if _second(cluster):
        for group in groups:
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield f"{group.get('groupName', 'head')}: restartPolicy is not Never"


def _auth(cluster: Manifest) -> Iterator[str]:
    options = cluster.get("authOptions", {})
    if options.get("enableK8sTokenAuth"):
        yield "authOptions: tokens of Kubernetes are not for a RayService"
    if options.get("mode") == "token":
        version = re.match(r"v?(\d+)\.(\d+)", cluster.get("rayVersion", ""))
        if version is None or (int(version[1]), int(version[2])) < (2, 52):
            yield "authOptions: needs rayVersion 2.52 or newer"
