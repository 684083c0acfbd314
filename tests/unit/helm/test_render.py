"""Every profile and every switch renders, and every Kubernetes that is supported takes the objects."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest
from helm_python import HelmError, HelmValuesError

from tests.unit.helm.engine import (
    APIS,
    CHART,
    NEWEST,
    OLDEST,
    PROFILES,
    RAY,
    VERSIONS,
    of_kind,
    rayservice,
    refused,
    render,
    values_of,
)
from tests.unit.helm.kuberay_rules import violations
from tests.unit.helm.switches import DIGEST, SWITCHES

BASE = "disagg-h200-l40s"
IMAGE = {"models": {"source": "image", "image": {"reference": f"registry.example/weights@{DIGEST}"}}}
FABRIC = {"pools": {"dit": {"fabricTopologyKey": "topology.example/rack"}}}


def check(values: dict[str, Any], kube: str) -> list[dict[str, Any]]:
    objects = render(values, kube=kube)
    assert refused(objects, kube) == []
    (service,) = of_kind(objects, "RayService")
    assert violations(service) == []
    named = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(named) == len(set(named))
    return objects


@pytest.mark.parametrize("kube", VERSIONS)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_on_a_kubernetes(profile: str, kube: str) -> None:
    assert len(check(values_of(profile), kube)) > 8


@pytest.mark.parametrize("kube", [OLDEST, NEWEST])
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch(switch: str, kube: str) -> None:
    check(values_of(BASE, SWITCHES[switch]), kube)


def test_all_switches_change_something() -> None:
    plain = render(values_of(BASE))
    assert [name for name, values in SWITCHES.items() if render(values_of(BASE, values)) == plain] == []


@pytest.mark.parametrize("kube", VERSIONS)
def test_weights_from_an_image_where_volumes_may_be_images(kube: str) -> None:
    values = values_of(BASE, IMAGE)
    if kube in {"1.35", "1.36"}:
        assert not of_kind(check(values, kube), "Job")
    else:
        with pytest.raises(HelmError, match=rf"has by default from 1\.35; this is v{kube}"):
            render(values, kube=kube)


@pytest.mark.parametrize("kube", VERSIONS)
def test_hosts_on_one_fabric_where_affinity_can_tell_replicas_apart(kube: str) -> None:
    values = values_of("multi-host-usp16", FABRIC)
    if kube in {"1.29", "1.30"}:
        with pytest.raises(HelmError, match=r"needs matchLabelKeys of Kubernetes 1\.31"):
            render(values, kube=kube)
    else:
        check(values, kube)


NEEDS = [
    ({"monitoring": {"podMonitor": {"enabled": True}}}, "monitoring.coreos.com/v1", "PodMonitor"),
    ({"monitoring": {"prometheusRule": {"enabled": True}}}, "monitoring.coreos.com/v1", None),
    (SWITCHES["route"], "gateway.networking.k8s.io/v1", "HTTPRoute"),
    (SWITCHES["upgrade in steps"], "gateway.networking.k8s.io/v1", None),
    (SWITCHES["Kueue"], "kueue.x-k8s.io/v1beta2", None),
    ({}, RAY, "RayService"),
]


@pytest.mark.parametrize(("values", "api", "kind"), NEEDS)
def test_an_api_that_is_not_there_is_told(values: dict[str, Any], api: str, kind: str | None) -> None:
    without = [one for one in APIS if one != api]
    with pytest.raises(HelmError, match=rf"does not offer {api}, which is needed for .*--api-versions {api}"):
        render(values_of(BASE, values), apis=without)
    unchecked = render(values_of(BASE, values, {"checkApis": False}), apis=without)
    checked = render(values_of(BASE, values))
    assert unchecked == checked
    assert kind is None or of_kind(checked, kind)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_needs_no_optional_api(profile: str) -> None:
    assert render(values_of(profile), apis=[RAY]) == render(values_of(profile), apis=APIS)


def lint(values: dict[str, Any], kube: str) -> list[dict[str, Any]]:
    """Findings above information. Lint knows no API but Kubernetes' own, so the chart does not check them."""
    report = helm_python.lint(
        CHART, {**values, "checkApis": False}, strict=True, namespace="video", kube_version=f"v{kube}.0"
    )
    return [one for one in report["messages"] if one["severity"] > 1] + report["errors"]


@pytest.mark.parametrize("kube", [OLDEST, NEWEST])
@pytest.mark.parametrize("profile", PROFILES)
def test_lint_finds_nothing_in_a_profile(profile: str, kube: str) -> None:
    assert lint(values_of(profile), kube) == []


@pytest.mark.parametrize("switch", SWITCHES)
def test_lint_finds_nothing_in_a_switch(switch: str) -> None:
    assert lint(values_of(BASE, SWITCHES[switch]), NEWEST) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"speed": 1}, "speed"),
        ({"ray": {"release": "2.60.0"}}, "release"),
        ({"drain": {"seconds": "long"}}, "/drain/seconds"),
        ({"upgrade": {"strategy": "Rolling"}}, "/upgrade/strategy"),
        ({"models": {"source": "ftp"}}, "/models/source"),
        ({"image": {"digest": "sha256:12"}}, "/image/digest"),
        ({"pools": {"Dit": {}}}, "/pools"),
        ({"pools": {"dit": {"min": -1}}}, "/pools/dit/min"),
        ({"site": {"pools": {}}}, "pools"),
        ({"site": {"artifacts": {"rot": "s3://x"}}}, "rot"),
    ],
)
def test_values_that_the_schema_refuses(values: dict[str, Any], told: str) -> None:
    with pytest.raises(HelmValuesError, match=told):
        render(values_of(BASE, values))


def test_no_release_is_bound_to_a_name() -> None:
    for release in ("a", "skyreels", "my-skyreels-2"):
        service = rayservice(values_of("dev-cpu"), release=release)
        assert service["metadata"]["name"] == (release if "skyreels" in release else f"{release}-skyreels")
