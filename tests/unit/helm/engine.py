"""The chart, rendered by Helm's own engine; and what a Kubernetes of a version says to the objects."""

from __future__ import annotations

import atexit
import copy
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import referencing
import yaml
from helm_python import _native
from kubernetes_validate.utils import all_versions, schema_contents

from cluster.chart.files import chart_profiles
from cluster.chart.values import helm_values
from cluster.config import profile
from tests.crds import schemas

CHART = Path(__file__).parents[3] / "helm/skyreels"
OLDEST, NEWEST = "1.29", "1.36"
VERSIONS = tuple(f"1.{minor}" for minor in range(29, 37))
RAY = "ray.io/v1"
OPTIONAL = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1", "kueue.x-k8s.io/v1beta2")
APIS = (RAY, *OPTIONAL)
Manifest = dict[str, Any]


@functools.cache
def chart(folder: Path = CHART) -> helm_python.Chart:
    loaded = helm_python.Chart.load(folder)
    atexit.register(loaded.close)
    return loaded


@functools.cache
def _values(name: str) -> str:
    return json.dumps(helm_values(profile(name)))


def values_of(name: str, *changes: Mapping[str, Any]) -> dict[str, Any]:
    """A profile's values with changes over them, merged as `helm -f` merges."""
    values: dict[str, Any] = json.loads(_values(name))
    for change in changes:
        values = merged(values, change)
    return values


def merged(base: Any, over: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return copy.deepcopy(over)
    return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}


PROFILES = chart_profiles()


def files(
    values: Mapping[str, Any],
    *,
    kube: str = NEWEST,
    apis: Iterable[str] = APIS,
    release: str = "rel",
    folder: Path = CHART,
) -> dict[str, str]:
    """Text by template, as `helm template` prints it. HelmError with the chart's words where it refuses.

    The wrapper's `render` hides the versions, which the library takes.
    """
    options = {"name": release, "namespace": "video", "kube_version": f"v{kube}.0", "api_versions": list(apis)}
    return dict(_files(folder, json.dumps(values), json.dumps(options)))


@functools.cache
def _files(folder: Path, values: str, options: str) -> dict[str, str]:
    loaded = chart(folder)
    loaded.validate_schema(json.loads(values))
    rendered: dict[str, str] = json.loads(_native.call_string("helm_render", loaded._raw(), values, options))
    return rendered


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def render(values: Mapping[str, Any], **options: Any) -> list[Manifest]:
    """All objects, hooks among them. See `files`."""
    texts = files(values, **options)
    return [
        one
        for path, text in texts.items()
        if not path.endswith("NOTES.txt")
        for one in yaml.load_all(text, Loader=_LOADER)
        if one
    ]


def of_kind(objects: Iterable[Manifest], kind: str) -> list[Manifest]:
    return [one for one in objects if one["kind"] == kind]


def rayservice(values: Mapping[str, Any], **options: Any) -> Manifest:
    (found,) = of_kind(render(values, **options), "RayService")
    return found


def cluster_of(service: Manifest) -> Manifest:
    found: Manifest = service["spec"]["rayClusterConfig"]
    return found


def groups_of(service: Manifest) -> list[Manifest]:
    return [cluster_of(service)["headGroupSpec"], *cluster_of(service)["workerGroupSpecs"]]


def pod_specs(objects: Iterable[Manifest]) -> list[tuple[str, Manifest]]:
    """The specs of all pods that come of the objects, with who makes them."""
    found: list[tuple[str, Manifest]] = []
    for one in objects:
        if one["kind"] == "RayService":
            found += [(f"RayService/{g.get('groupName', 'head')}", g["template"]["spec"]) for g in groups_of(one)]
        elif one["kind"] == "Pod":
            found.append(("Pod", one["spec"]))
        elif one["kind"] in {"Job", "DaemonSet"}:
            found.append((one["kind"], one["spec"]["template"]["spec"]))
    return found


@functools.cache
def _registry(kube: str) -> tuple[str, Any]:
    """kubernetes-validate's strict schemas; it would read all of them again for each object."""
    version = next(one for one in all_versions() if one.startswith(f"{kube}."))
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    definitions = referencing.Resource.from_contents(schema_contents(f"{folder}/_definitions.json", kube))
    return folder, definitions @ referencing.Registry()


@functools.cache
def _validator(kube: str, api: str, kind: str) -> Any:
    folder, registry = _registry(kube)
    group, _, version = api.rpartition("/")
    name = f"{kind.lower()}-{group.partition('.')[0] + '-' if group else ''}{version}"
    schema = schema_contents(f"{folder}/{name}.json", kube)
    registry = referencing.Resource.from_contents(schema) @ registry
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _refusals(kube: str, text: str) -> tuple[str, ...]:
    manifest = json.loads(text)
    if schemas().knows(manifest):
        return tuple(schemas().errors(manifest))
    found = _validator(kube, manifest["apiVersion"], manifest["kind"]).iter_errors(manifest)
    return tuple(f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found)


def refused(objects: Iterable[Manifest], kube: str) -> list[str]:
    """What an API server of that version would refuse of the objects, and of the pods that come of the RayService."""
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": who.replace("/", "-").lower()}, "spec": spec}
        for who, spec in pod_specs(of_kind(objects, "RayService"))
    ]
    return [
        f"{one['kind']}/{one['metadata']['name']}: {error}"
        for one in [*objects, *pods]
        for error in _refusals(kube if not schemas().knows(one) else "", json.dumps(one, sort_keys=True))
    ]
