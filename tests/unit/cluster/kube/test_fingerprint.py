from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.kube.fingerprint import differences, fingerprint, keeps_cluster


def group(name: str = "dit", image: str = "a:1") -> dict[str, Any]:
    return {
        "groupName": name,
        "minReplicas": 1,
        "maxReplicas": 4,
        "scaleStrategy": {"workersToDelete": ["x"]},
        "template": {"spec": {"containers": [{"name": "w", "image": image}], "tolerations": [{"key": "gpu"}]}},
    }


def service(*groups: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"helm.sh/chart": "skyreels-1"}},
        "spec": {
            "serveConfigV2": "a: 1",
            "rayClusterConfig": {
                "rayVersion": "2.60.0",
                "suspend": False,
                "headGroupSpec": {"template": {"spec": {"containers": [{"name": "h", "image": "a:1"}]}}},
                "workerGroupSpecs": list(groups),
            },
        },
    }


def set_path(manifest: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    at: Any = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


CLUSTER = ("spec", "rayClusterConfig")
GROUP = (*CLUSTER, "workerGroupSpecs", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "labels", "helm.sh/chart"), "skyreels-2"),
        (("spec", "serveConfigV2"), "a: 2"),
        ((*CLUSTER, "suspend"), True),
        ((*GROUP, "minReplicas"), 0),
        ((*GROUP, "maxReplicas"), 9),
        ((*GROUP, "replicas"), 2),
        ((*GROUP, "scaleStrategy", "workersToDelete"), []),
        ((*GROUP, "template", "spec", "tolerations"), []),
    ],
)
def test_what_the_operator_applies_in_place(path: tuple[Any, ...], value: Any) -> None:
    old = service(group())
    new = set_path(old, path, value)
    assert old != new
    assert keeps_cluster(old, new)
    assert fingerprint(old) == fingerprint(new)
    assert differences(old, new) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ((*CLUSTER, "rayVersion"), "2.61.0", "rayVersion"),
        ((*GROUP, "groupName"), "other", "workerGroupSpecs[0].groupName"),
        (
            (*GROUP, "template", "spec", "containers", 0, "image"),
            "a:2",
            "workerGroupSpecs[0].template.spec.containers[0].image",
        ),
        ((*GROUP, "numOfHosts"), 2, "workerGroupSpecs[0].numOfHosts"),
        (
            (*CLUSTER, "headGroupSpec", "template", "metadata"),
            {"labels": {"v": "2"}},
            "headGroupSpec.template.metadata",
        ),
    ],
)
def test_what_makes_a_second_cluster(path: tuple[Any, ...], value: Any, told: str) -> None:
    old = service(group())
    new = set_path(old, path, value)
    assert not keeps_cluster(old, new)
    assert fingerprint(old) != fingerprint(new)
    assert differences(old, new) == [told]


def test_groups_may_only_be_appended() -> None:
    old = service(group("dit"))
    assert keeps_cluster(old, service(group("dit"), group("aux")))
    assert not keeps_cluster(old, service(group("aux"), group("dit")))
    assert not keeps_cluster(service(group("dit"), group("aux")), old)
    assert differences(service(group("dit"), group("aux")), old) == ["workerGroupSpecs"]


def test_a_manifest_is_left_as_it_was() -> None:
    old = service(group())
    kept = copy.deepcopy(old)
    fingerprint(old)
    assert old == kept
