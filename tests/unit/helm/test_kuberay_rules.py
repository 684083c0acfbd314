"""The port of the operator's rules refuses what the operator refuses; else the chart's tests would prove nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.crds import schemas
from tests.unit.helm.engine import NEWEST, cluster_of, of_kind, rayservice, refused, render, values_of
from tests.unit.helm.kuberay_rules import violations

Change = Callable[[dict[str, Any]], object]


def head(service: dict[str, Any]) -> Any:
    return cluster_of(service)["headGroupSpec"]


def worker(service: dict[str, Any]) -> Any:
    return cluster_of(service)["workerGroupSpecs"][0]


def env(service: dict[str, Any], name: str, value: str = "1") -> None:
    head(service)["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": value})


ROUTE = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gw"}]}}
PARENT = {"name": "gw"}
REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"hostname": "other.example"}}


def rule(route: dict[str, Any]) -> Any:
    return route["spec"]["rules"][0]


def strategy(service: dict[str, Any], **options: object) -> None:
    service["spec"]["upgradeStrategy"] = {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {"gatewayClassName": "g", "stepSizePercent": 5, "intervalSeconds": 5} | options,
    }


BROKEN: list[tuple[Change, str]] = [
    (lambda s: s["metadata"].update(name="a" * 48), "47"),
    (lambda s: s["metadata"].update(name="1a"), "DNS-1035"),
    (lambda s: s["metadata"].update(annotations={"ray.io/initializing-timeout": "soon"}), "duration"),
    (lambda s: s["spec"].update(upgradeStrategy={"type": "Rolling"}), "unknown"),
    (lambda s: s["spec"].update(rayClusterDeletionDelaySeconds=-1), "negative"),
    (lambda s: strategy(s, maxSurgePercent=101), "maxSurgePercent"),
    (lambda s: strategy(s, stepSizePercent=-1), "stepSizePercent"),
    (lambda s: strategy(s, intervalSeconds=0), "intervalSeconds"),
    (lambda s: strategy(s, gatewayClassName=""), "gatewayClassName"),
    (
        lambda s: s["spec"].update(upgradeStrategy={"type": "NewClusterWithIncrementalUpgrade"}),
        "clusterUpgradeOptions",
    ),
    (lambda s: (strategy(s), cluster_of(s).update(enableInTreeAutoscaling=False)), "need the autoscaler"),
    (lambda s: head(s).update(headService={"metadata": {"name": "x"}}), "headService"),
    (lambda s: head(s)["template"]["spec"].update(containers=[]), "no container"),
    (lambda s: worker(s)["template"]["spec"].update(containers=[]), "no container"),
    (lambda s: head(s).update(resources={"CPU": "1"}), "both in rayStartParams"),
    (lambda s: worker(s)["rayStartParams"].update(labels="a=b"), "labels in rayStartParams"),
    (lambda s: worker(s)["labels"].update(a="b c"), "malformed"),
    (lambda s: worker(s).update(minReplicas=9), "minReplicas above"),
    (lambda s: worker(s).update(suspend=True), "suspended"),
    (lambda s: (worker(s).update(priority=1), cluster_of(s)["autoscalerOptions"].pop("version")), "need autoscaler v2"),
    (lambda s: cluster_of(s)["workerGroupSpecs"].append(copy.deepcopy(worker(s))), "unique"),
    (lambda s: head(s)["template"]["spec"]["containers"][0].update(ports=[]), "no port serve"),
    (lambda s: (cluster_of(s).pop("gcsFaultToleranceOptions"), env(s, "RAY_REDIS_ADDRESS")), "without gcsFault"),
    (lambda s: env(s, "REDIS_PASSWORD"), "beside gcsFault"),
    (lambda s: head(s)["rayStartParams"].update({"redis-username": "x"}), "redis-username"),
    (lambda s: s["metadata"].update(annotations={"ray.io/external-storage-namespace": "x"}), "set twice"),
    (lambda s: env(s, "RAY_enable_autoscaler_v2"), "beside autoscalerOptions"),
    (lambda s: (cluster_of(s).update(enableInTreeAutoscaling=False), env(s, "RAY_enable_autoscaler_v2")), "is off"),
    (lambda s: worker(s)["template"]["spec"].update(restartPolicy="Always"), "not Never"),
    (lambda s: cluster_of(s).update(rayVersion="2.51.0"), "2.52"),
    (lambda s: cluster_of(s).pop("rayVersion"), "2.52"),
    (lambda s: cluster_of(s)["authOptions"].update(enableK8sTokenAuth=True), "tokens of Kubernetes"),
]


@pytest.mark.parametrize(("change", "told"), BROKEN, ids=[told for _, told in BROKEN])
def test_a_rule_is_broken_and_told(change: Change, told: str) -> None:
    service = copy.deepcopy(rayservice(values_of("disagg-h200-l40s")))
    assert violations(service) == []
    change(service)
    assert any(told in one for one in violations(service))


def test_the_schemas_refuse_unknown_and_misplaced_fields() -> None:
    service = copy.deepcopy(rayservice(values_of("dev-cpu")))
    assert schemas().errors(service) == []
    worker(service)["numOfHost"] = 2
    worker(service)["minReplicas"] = "one"
    assert len(schemas().errors(service)) == 2
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "x"},
        "spec": {"minAvailabel": 1},
    }
    (told,) = refused([budget], NEWEST)
    assert "minAvailabel" in told


Broken = tuple[str, dict[str, Any], Change, str]
RULED: list[Broken] = [
    ("RayService", {}, lambda s: s["spec"].update(managedBy="me"), "spec.managedBy"),
    ("HTTPRoute", ROUTE, lambda s: rule(s).update(filters=[REDIRECT]), "must not be used together with backendRefs"),
    ("HTTPRoute", ROUTE, lambda s: rule(s).update(filters=[{"type": "CORS"}]), "filter.cors must be specified"),
    ("HTTPRoute", ROUTE, lambda s: rule(s)["backendRefs"][0].pop("port"), "Must have port for Service reference"),
    ("HTTPRoute", ROUTE, lambda s: s["spec"]["parentRefs"].append(PARENT), "sectionName must be unique"),
    (
        "HTTPRoute",
        ROUTE,
        lambda s: rule(s).update(timeouts={"request": "1s", "backendRequest": "2s"}),
        "backendRequest",
    ),
]


@pytest.mark.parametrize(("kind", "switch", "change", "told"), RULED, ids=[told for *_, told in RULED])
def test_a_rule_of_a_definition_is_broken_and_told(
    kind: str, switch: dict[str, Any], change: Change, told: str
) -> None:
    (found,) = of_kind(render(values_of("disagg-h200-l40s", switch)), kind)
    found = copy.deepcopy(found)
    assert schemas().errors(found) == []
    change(found)
    (error,) = schemas().errors(found)
    assert told in error


def test_defaults_come_before_the_check() -> None:
    service = copy.deepcopy(rayservice(values_of("dev-cpu")))
    del worker(service)["maxReplicas"]
    worker(service)["minReplicas"] = None
    assert schemas().errors(service) == []
    stored = worker(schemas().defaulted(service))
    assert (stored["minReplicas"], stored["maxReplicas"]) == (0, 2147483647)


def test_a_volume_that_an_old_kubernetes_does_not_know_is_refused_there() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "x"}], "volumes": [{"name": "w", "image": {"reference": "x"}}]},
    }
    assert refused([pod], "1.29")
    assert not refused([pod], "1.36")
