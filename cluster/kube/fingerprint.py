"""Whether KubeRay would build a second cluster, with GPUs of its own, for a change of a RayService.

The operator compares a hash over the `rayClusterConfig` without the fields that it changes in place or leaves alone
(ray-project/kuberay v1.7.0, `GenerateHashWithoutReplicasAndWorkersToDelete` in
`ray-operator/controllers/ray/utils/util.go`, and `rayservice_controller.go`). Worker groups appended behind the old
ones are added to the running cluster. These functions take manifests as plain data and speak to nothing.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

Manifest = Mapping[str, Any]

_MUTED_CLUSTER = ("suspend", "upgradeStrategy")
_MUTED_GROUP = ("replicas", "minReplicas", "maxReplicas")
_MUTED_POD = ("tolerations", "schedulingGates")


def hashed_spec(rayservice: Manifest, groups: int | None = None) -> dict[str, Any]:
    """What the operator hashes of a RayService, a copy; with `groups`, only that many of its worker groups.

    Raises:
        KeyError: the manifest has no `spec.rayClusterConfig.headGroupSpec`.
    """
    spec: dict[str, Any] = copy.deepcopy(rayservice["spec"]["rayClusterConfig"])
    for key in _MUTED_CLUSTER:
        spec.pop(key, None)
    workers = spec.get("workerGroupSpecs", [])[:groups]
    if "workerGroupSpecs" in spec:
        spec["workerGroupSpecs"] = workers
    for group in workers:
        for key in _MUTED_GROUP:
            group.pop(key, None)
        group.get("scaleStrategy", {}).pop("workersToDelete", None)
    for group in (spec["headGroupSpec"], *workers):
        for key in _MUTED_POD:
            group.get("template", {}).get("spec", {}).pop(key, None)
    return spec


def fingerprint(rayservice: Manifest, groups: int | None = None) -> str:
    """Sixteen hex digits that are equal where the operator keeps the cluster. See `hashed_spec`."""
    text = json.dumps(hashed_spec(rayservice, groups), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def keeps_cluster(old: Manifest, new: Manifest) -> bool:
    """Whether the operator applies `new` to the cluster that runs `old`: equal, or only worker groups appended."""
    count = len(old["spec"]["rayClusterConfig"].get("workerGroupSpecs", []))
    if len(new["spec"]["rayClusterConfig"].get("workerGroupSpecs", [])) < count:
        return False
    return fingerprint(old) == fingerprint(new, groups=count)


def differences(old: Manifest, new: Manifest) -> list[str]:
    """Paths below `rayClusterConfig` whose change makes the operator build a second cluster; none if it keeps it."""
    if keeps_cluster(old, new):
        return []
    count = len(old["spec"]["rayClusterConfig"].get("workerGroupSpecs", []))
    return _differing(hashed_spec(old), hashed_spec(new, groups=count), "")


def _differing(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [one for key in keys for one in _differing(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            one
            for index, pair in enumerate(zip(old, new, strict=True))
            for one in _differing(*pair, f"{path}[{index}]")
        ]
    return [] if old == new else [path]
