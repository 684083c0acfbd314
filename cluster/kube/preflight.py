"""What an installation needs of its Kubernetes, looked at before anything is installed: a line each, with the remedy.

What this user may not look at is no failure: the line says so, and who can answer it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cluster.errors import ConfigError, Forbidden, NotFound
from cluster.kube.client import Cluster, Object
from cluster.kube.kinds import (
    DEFINITION,
    DEPLOYMENT,
    EVENT,
    NODE,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    STORAGE_CLASS,
    Kind,
    Manifest,
    gpu_resources,
)

KUBERNETES = (1, 29)
OPERATOR = (1, 4)  # the first whose RayService has status conditions and upgrade strategies as the chart sets them
CRDS = (RAY_SERVICE, RAY_CLUSTER)
RIGHTS = (
    *((verb, RAY_SERVICE) for verb in ("get", "list", "watch", "create", "patch")),
    *((verb, RAY_CLUSTER) for verb in ("get", "list", "watch", "patch")),
    *((verb, POD) for verb in ("get", "list")),
    ("list", EVENT),
)
_OPERATOR_LABELS = ("app.kubernetes.io/name=kuberay-operator", "app.kubernetes.io/component=kuberay-operator")


@dataclass(frozen=True, slots=True)
class Check:
    """One line: whether it holds (None: this user may not look), what was found, and what to do about it."""

    name: str
    passed: bool | None
    found: str
    remedy: str = ""


def preflight(cluster: Cluster, objects: Sequence[Manifest] = ()) -> list[Check]:
    """All checks; those of GPUs and storage look for what the given manifests ask for.

    Raises:
        Unavailable, Unauthenticated: the server cannot be asked at all.
    """
    checks = [_version(cluster), *_definitions(cluster), _looked("KubeRay", partial(_operator, cluster))]
    checks += _resources(cluster, objects)
    checks += _storage(cluster, objects)
    checks += list(_rights(cluster))
    return checks


def _looked(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Forbidden as error:
        return Check(name, None, error.message, "ask an administrator of the cluster to look")


def _version(cluster: Cluster) -> Check:
    told = cluster.version()
    least = ".".join(map(str, KUBERNETES))
    found = re.match(r"v?(\d+)\.(\d+)", told)
    passed = found is not None and (int(found[1]), int(found[2])) >= KUBERNETES
    return Check("Kubernetes", passed, told, "" if passed else f"upgrade the cluster to {least} or later")


def _definitions(cluster: Cluster) -> Iterator[Check]:
    for kind in CRDS:
        yield _looked(f"CRD {kind.told}", partial(_definition, cluster, kind))


def _definition(cluster: Cluster, kind: Kind) -> Check:
    name = f"CRD {kind.told}"
    try:
        found = cluster.get(DEFINITION, kind.told)
    except NotFound:
        return Check(name, False, "missing", "install the KubeRay operator with its CRDs")
    served = [one["name"] for one in found["spec"]["versions"] if one["served"]]
    passed = kind.version in served
    remedy = "" if passed else f"upgrade the KubeRay CRDs: {kind.version} is needed"
    return Check(name, passed, f"serves {', '.join(served)}", remedy)


def _operator(cluster: Cluster) -> Check:
    least = ".".join(map(str, OPERATOR))
    remedy = f"install the KubeRay operator {least} or later"
    found: list[Object] = []
    for selector in _OPERATOR_LABELS:
        found = found or cluster.find(DEPLOYMENT, selector=selector, everywhere=True)
    if not found:
        return Check("KubeRay", False, "no operator", remedy)
    image = found[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    where = f"{image} in {found[0]['metadata']['namespace']}"
    if not found[0].get("status", {}).get("availableReplicas"):
        return Check("KubeRay", False, f"{where}, not available", "look at the operator's pods")
    told = re.search(r":v?(\d+)\.(\d+)", image)
    if told is None:
        return Check("KubeRay", None, f"{where}, version not told by the tag", f"make sure it is {least} or later")
    passed = (int(told[1]), int(told[2])) >= OPERATOR
    return Check("KubeRay", passed, where, "" if passed else remedy)


def _resources(cluster: Cluster, objects: Sequence[Manifest]) -> Iterator[Check]:
    needed: dict[str, int] = {}
    for found in objects:
        if found["kind"] == "RayService":
            for name, count in gpu_resources(found["spec"]["rayClusterConfig"]).items():
                needed[name] = needed.get(name, 0) + count
    for name in sorted(needed):
        yield _looked(f"GPUs {name}", partial(_gpus, cluster, name, needed[name]))


def _gpus(cluster: Cluster, name: str, needed: int) -> Check:
    total = 0
    for node in cluster.find(NODE):
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"].get("conditions", ()))
        if ready and not node["spec"].get("unschedulable"):
            total += int(node["status"].get("allocatable", {}).get(name, 0))
    found = f"{total} on ready nodes, {needed} needed from the start"
    remedy = "add nodes, or lower the pools' minimum; with node autoscaling this may be as it should"
    return Check(f"GPUs {name}", total >= needed, found, "" if total >= needed else remedy)


def _storage(cluster: Cluster, objects: Sequence[Manifest]) -> Iterator[Check]:
    claims = [found for found in objects if found["kind"] == "PersistentVolumeClaim"]
    for claim in claims:
        name = f"storage class of {claim['metadata']['name']}"
        yield _looked(name, partial(_storage_class, cluster, name, claim))


def _storage_class(cluster: Cluster, name: str, claim: Manifest) -> Check:
    wanted = claim["spec"].get("storageClassName")
    if wanted == "":
        return Check(name, True, "none asked for: a volume that exists")
    classes = {one["metadata"]["name"]: one["metadata"].get("annotations", {}) for one in cluster.find(STORAGE_CLASS)}
    if wanted is None:
        default = [
            one for one, notes in classes.items() if notes.get("storageclass.kubernetes.io/is-default-class") == "true"
        ]
        remedy = "" if default else f"name one of {', '.join(sorted(classes)) or 'those that you create'}"
        return Check(name, bool(default), f"default {default[0]}" if default else "no default", remedy)
    remedy = "" if wanted in classes else f"create it, or name one of {', '.join(sorted(classes)) or 'none yet'}"
    return Check(name, wanted in classes, wanted if wanted in classes else f"{wanted} does not exist", remedy)


def _rights(cluster: Cluster) -> Iterator[Check]:
    for kind in dict.fromkeys(kind for _, kind in RIGHTS):
        verbs = [verb for verb, of in RIGHTS if of is kind]
        missing = [verb for verb in verbs if not cluster.may(verb, kind)]
        remedy = f"grant {', '.join(missing)} on {kind.told} in {cluster.namespace}; the chart's operator role does"
        found = ", ".join(verbs) if not missing else f"may not {', '.join(missing)}"
        yield Check(f"rights on {kind.told}", not missing, found, remedy if missing else "")


def demand(checks: Sequence[Check]) -> None:
    """Raises ConfigError when one of them failed."""
    if failed := [check.name for check in checks if check.passed is False]:
        raise ConfigError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.")
