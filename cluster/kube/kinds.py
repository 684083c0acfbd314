"""Kinds of objects and their addresses in the API, and what is read out of manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.errors import ConfigError

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object at one version of its API."""

    group: str  # "" is the core
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api(self) -> str:
        """Path of the API group."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def told(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Of the collection, or of one object."""
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.api}{scope}/{self.plural}" + (f"/{name}" if name else "")


RAY_SERVICE = Kind("ray.io", "v1", "rayservices")
RAY_CLUSTER = Kind("ray.io", "v1", "rayclusters")
POD = Kind("", "v1", "pods")
EVENT = Kind("", "v1", "events")
NODE = Kind("", "v1", "nodes", namespaced=False)
DEPLOYMENT = Kind("apps", "v1", "deployments")
STORAGE_CLASS = Kind("storage.k8s.io", "v1", "storageclasses", namespaced=False)
DEFINITION = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
ACCESS_REVIEW = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", namespaced=False)


def read_manifests(text: str, where: str) -> list[dict[str, Any]]:
    """The objects of a YAML stream, as `helm template` prints it; lists are opened.

    Raises:
        ConfigError: not YAML, or something in it is no object of Kubernetes.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from error
    objects: list[dict[str, Any]] = []
    for document in documents:
        objects += document.get("items", []) if _is(document, "List") else [document]
    for found in objects:
        if not isinstance(found, dict) or not found.get("apiVersion") or not found.get("kind"):
            raise ConfigError(f"{where} holds something without apiVersion and kind; give rendered manifests.")
        if not found.get("metadata", {}).get("name"):
            raise ConfigError(f"{where}: a {found['kind']} has no metadata.name.")
    return objects


def ray_service(objects: Iterable[Manifest], where: str) -> Manifest:
    """The one RayService among the objects. ConfigError."""
    found = [one for one in objects if one["kind"] == "RayService"]
    if len(found) != 1:
        raise ConfigError(f"{where} holds {len(found)} RayServices; give the rendered chart of one release.")
    return found[0]


def serve_config_of(service: Manifest) -> dict[str, Any]:
    """A RayService's Serve config, parsed. ConfigError."""
    try:
        config = yaml.safe_load(service["spec"].get("serveConfigV2") or "{}")
    except yaml.YAMLError as error:
        raise ConfigError(f"{named(service)}: serveConfigV2 is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{named(service)}: serveConfigV2 is no mapping.")
    return config


def groups_of(spec: Manifest) -> list[dict[str, Any]]:
    """Worker groups of a RayCluster's spec."""
    return list(spec.get("workerGroupSpecs") or ())


def bounds_of(group: Manifest) -> tuple[int, int]:
    """A worker group's least and most replicas; a group of a fixed size has both equal."""
    fixed = int(group.get("replicas") or 0)
    least = group.get("minReplicas")
    most = group.get("maxReplicas")
    return (fixed if least is None else int(least), fixed if most is None else int(most))


def gpus_of(spec: Manifest) -> int:
    """GPUs that a RayCluster asks for before anything is scaled: its head and each group's least replicas."""
    total = _pod_gpus(spec.get("headGroupSpec", {}))
    for group in groups_of(spec):
        replicas = max(bounds_of(group)[0], int(group.get("replicas") or 0))
        total += replicas * int(group.get("numOfHosts") or 1) * _pod_gpus(group)
    return total


def gpu_resources(spec: Manifest) -> dict[str, int]:
    """GPUs by resource name, like `gpus_of`."""
    found: dict[str, int] = {}
    for group in groups_of(spec):
        replicas = max(bounds_of(group)[0], int(group.get("replicas") or 0)) * int(group.get("numOfHosts") or 1)
        for name, count in _gpu_limits(group).items():
            found[name] = found.get(name, 0) + replicas * count
    return {name: count for name, count in found.items() if count}


def named(found: Manifest) -> str:
    """How messages call an object."""
    return f"{found.get('kind', 'object')} {found.get('metadata', {}).get('name', '?')}"


def _pod_gpus(group: Manifest) -> int:
    return sum(_gpu_limits(group).values())


def _gpu_limits(group: Manifest) -> dict[str, int]:
    containers = group.get("template", {}).get("spec", {}).get("containers", [])
    limits = containers[0].get("resources", {}).get("limits", {}) if containers else {}  # the first one is Ray's
    return {name: int(count) for name, count in limits.items() if name.endswith("/gpu")}


def _is(document: object, kind: str) -> bool:
    return isinstance(document, dict) and document.get("kind") == kind
