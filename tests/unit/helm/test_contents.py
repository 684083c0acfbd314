"""What the objects say: who may do what, who finds whom, what an upgrade costs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kube.fingerprint import differences, fingerprint, keeps_cluster
from cluster.kube.preflight import RIGHTS
from cluster.monitoring.write import ALERTS
from tests.unit.helm.engine import (
    CHART,
    PROFILES,
    cluster_of,
    files,
    groups_of,
    of_kind,
    pod_specs,
    rayservice,
    render,
    values_of,
)
from tests.unit.helm.switches import DIGEST, SWITCHES

BASE = "disagg-h200-l40s"
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip


def unrestricted(spec: dict[str, Any]) -> set[str]:
    """What the Pod Security Standard "restricted" refuses of a pod."""
    found = {key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)}
    found |= {key for one in spec.get("volumes", []) for key in one if key not in RESTRICTED_VOLUMES | {"name"}}
    whole = spec.get("securityContext", {})
    if whole.get("runAsUser") == 0:
        found.add("root")
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = {**whole, **container.get("securityContext", {})}
        if not context.get("runAsNonRoot"):
            found.add("root")
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            found.add("privileges")
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            found.add("capabilities")
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.add("seccomp")
        if any("hostPort" in port for port in container.get("ports", [])):
            found.add("hostPort")
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_every_pod_is_restricted(profile: str) -> None:
    specs = pod_specs(render(values_of(profile)))
    assert len(specs) >= 3
    assert {who: told for who, spec in specs if (told := unrestricted(spec))} == {}


def test_only_weights_on_nodes_break_the_restriction() -> None:
    for name, values in SWITCHES.items():
        told = {one for _, spec in pod_specs(render(values_of(BASE, values))) for one in unrestricted(spec)}
        assert told == ({"hostPath"} if name.startswith("weights: on nodes") else set()), name


def test_root_file_systems_are_read_only_and_tmp_is_not() -> None:
    for who, spec in pod_specs(render(values_of(BASE))):
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            mounts = {one["mountPath"] for one in container.get("volumeMounts", [])}
            assert "/tmp" in mounts or who == "Pod"  # noqa: S108


def test_workers_have_no_token_and_the_head_only_for_its_autoscaler() -> None:
    objects = render(values_of(BASE))
    for who, spec in pod_specs(objects):
        assert spec["automountServiceAccountToken"] is (who == "RayService/head")
    assert all(one["automountServiceAccountToken"] is False for one in of_kind(objects, "ServiceAccount"))
    still = pod_specs(render(values_of(BASE, SWITCHES["no autoscaler"])))
    assert not any(spec["automountServiceAccountToken"] for _, spec in still)
    assert not of_kind(objects, "Role") and not of_kind(objects, "ClusterRole")


def test_every_account_that_a_pod_names_is_there() -> None:
    objects = render(values_of(BASE))
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    assert {spec["serviceAccountName"] for _, spec in pod_specs(objects)} == accounts


def test_the_operators_role_may_not_delete_and_reads_no_secret() -> None:
    (role,) = of_kind(render(values_of(BASE, SWITCHES["operator's role"])), "Role")
    verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
    resources = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert "*" not in verbs | resources
    assert not {"delete", "deletecollection", "escalate", "bind", "impersonate"} & verbs
    assert not {"secrets", "pods/exec"} & resources


def test_no_secret_is_made_or_written_down() -> None:
    objects = render(values_of(BASE))
    assert not of_kind(objects, "Secret")
    for group in groups_of(rayservice(values_of(BASE))):
        variables = {one["name"]: one for one in group["template"]["spec"]["containers"][0]["env"]}
        for name, secret in (("PGPASSWORD", "skyreels-postgresql"), ("AWS_SECRET_ACCESS_KEY", "skyreels-s3")):
            assert variables[name]["valueFrom"]["secretKeyRef"]["name"] == secret
        assert variables["PGHOST"]["value"] == "postgresql"
    password = cluster_of(rayservice(values_of(BASE)))["gcsFaultToleranceOptions"]["redisPassword"]
    assert password["valueFrom"]["secretKeyRef"]["name"] == "skyreels-redis"


def test_ray_asks_for_its_token() -> None:
    assert cluster_of(rayservice(values_of("dev-cpu")))["authOptions"] == {"mode": "token"}


# -- upgrades


def with_chart(tmp_path: Path, **fields: str) -> Path:
    folder = tmp_path / "-".join(fields)
    shutil.copytree(CHART, folder)
    meta = yaml.safe_load((folder / "Chart.yaml").read_text())
    (folder / "Chart.yaml").write_text(yaml.safe_dump(meta | fields))
    return folder


def test_a_new_version_of_the_chart_keeps_the_cluster(tmp_path: Path) -> None:
    values = values_of(BASE)
    old, new = rayservice(values), rayservice(values, folder=with_chart(tmp_path, version="9.9.9"))
    assert old != new
    assert fingerprint(old) == fingerprint(new)


def test_a_new_version_of_the_system_is_a_new_image(tmp_path: Path) -> None:
    values = values_of(BASE)
    old, new = rayservice(values), rayservice(values, folder=with_chart(tmp_path, appVersion="9.9.9"))
    assert not keeps_cluster(old, new)
    assert all(path.endswith("image") for path in differences(old, new))


KEEPS = {
    "Serve config": {"serve": {"config": {"logging_config": {"encoding": "TEXT"}}}},
    "site": SWITCHES["site"],
    "bounds": {"pools": {"dit": {"max": 7, "min": 2}}},
    "a group behind the others": SWITCHES["one more group"],
    "deletion": {"upgrade": {"deletionDelaySeconds": 7200}},
    "strategy": SWITCHES["no upgrade"],
    "monitoring": SWITCHES["monitoring"],
    "ingress": SWITCHES["ingress"],
    "network": SWITCHES["network peers"],
    "queue": SWITCHES["Kueue"],
    "tolerations": {"head": {"tolerations": [{"key": "x", "operator": "Exists"}]}},
}
REPLACES = {
    "image": SWITCHES["image by digest"],
    "environment": SWITCHES["environment"],
    "Ray": {"ray": {"version": "2.60.1"}},
    "memory of a group": {"pools": {"dit": {"memory": "300Gi"}}},
    "drain": {"drain": {"seconds": 1200}},
    "a group before the others": {"pools": {"aux": {"order": 1, "cpus": 1}}},
    "weights": {"models": {"source": "image", "image": {"reference": f"w@{DIGEST}"}}},
}


@pytest.mark.parametrize("name", KEEPS)
def test_what_keeps_the_cluster(name: str) -> None:
    old, new = rayservice(values_of(BASE)), rayservice(values_of(BASE, KEEPS[name]))
    assert keeps_cluster(old, new), differences(old, new)


@pytest.mark.parametrize("name", REPLACES)
def test_what_builds_a_second_cluster(name: str) -> None:
    old, new = rayservice(values_of(BASE)), rayservice(values_of(BASE, REPLACES[name]))
    assert not keeps_cluster(old, new)
    assert differences(old, new)


def test_no_pod_carries_what_changes_with_the_chart() -> None:
    for group in groups_of(rayservice(values_of(BASE))):
        labels = group["template"]["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels)


def test_the_autoscaler_alone_says_how_many_replicas_there_are() -> None:
    assert all("replicas" not in group for group in cluster_of(rayservice(values_of(BASE)))["workerGroupSpecs"])


def test_pods_have_the_time_that_draining_takes() -> None:
    for group in cluster_of(rayservice(values_of(BASE, {"drain": {"seconds": 1200}})))["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        variables = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
        assert variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "1200"
        assert spec["terminationGracePeriodSeconds"] == 1260
        assert "lifecycle" not in spec["containers"][0]


# -- groups


def workers(profile: str, *changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = cluster_of(rayservice(values_of(profile, *changes)))["workerGroupSpecs"]
    return {group["groupName"]: group for group in found}


def test_groups_keep_their_order_whatever_their_names() -> None:
    assert list(workers(BASE)) == ["edge", "encode", "dit", "decode"]
    assert list(workers(BASE, {"pools": {"aaa": {"order": 50}}})) == ["edge", "encode", "dit", "decode", "aaa"]


def test_a_group_in_one_node_is_one_pod() -> None:
    dit = workers(BASE)["dit"]
    assert dit["numOfHosts"] == 1
    assert dit["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"


def test_a_group_over_two_nodes_is_two_whole_pods_that_come_together() -> None:
    dit = workers("multi-host-usp16", {"pools": {"dit": {"fabricTopologyKey": "rack"}}})["dit"]
    assert dit["numOfHosts"] == 2
    assert dit["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    (term,) = dit["template"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "rack"
    assert term["matchLabelKeys"] == ["ray.io/worker-group-replica-name"]
    assert term["labelSelector"]["matchLabels"].items() <= dit["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_deployment_is_placed_by_labels_that_a_group_has(profile: str) -> None:
    service = rayservice(values_of(profile))
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    groups = cluster_of(service)["workerGroupSpecs"]
    for deployment in application["deployments"]:
        selectors = deployment.get("placement_group_bundle_label_selector") or [
            deployment["ray_actor_options"]["label_selector"]
        ]
        for selector in selectors:
            assert sum(selector.items() <= group["labels"].items() for group in groups) == 1
    assert "resources" not in groups[0]


def test_spot_and_lasting_pods() -> None:
    groups = workers("spot-encode")
    markets = {name: group["labels"]["ray.io/market-type"] for name, group in groups.items()}
    assert markets == {"edge": "on-demand", "encode": "spot", "dit": "on-demand", "decode": "spot"}
    lasting = {name for name, group in groups.items() if "annotations" in group["template"]["metadata"]}
    assert lasting == {"dit"}


def test_accelerators_say_which_nodes() -> None:
    spec = workers(BASE)["dit"]["template"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_the_head_runs_no_replica_and_gets_no_traffic() -> None:
    service = rayservice(values_of(BASE))
    assert cluster_of(service)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert service["spec"]["excludeHeadPodFromServeSvc"] is True


# -- weights


def volumes(spec: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in spec["volumes"]}


def test_weights_come_over_a_claim_that_a_job_fills() -> None:
    objects = render(values_of(BASE))
    (claim,), (job,) = of_kind(objects, "PersistentVolumeClaim"), of_kind(objects, "Job")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    asked = ["skyreels-v3-r2v-14b=Skywork/SkyReels-V3-R2V-14B@main"]
    fetch = job["spec"]["template"]["spec"]["containers"][0]
    assert (fetch["command"][-2:], fetch["args"]) == (["fetch", "/models"], asked)
    for name, group in workers(BASE).items():
        spec = group["template"]["spec"]
        if name == "edge":
            assert "models" not in volumes(spec) and "initContainers" not in spec
            continue
        assert volumes(spec)["models"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (wait,) = spec["initContainers"]
        assert (wait["command"][-2:], wait["args"]) == (["await", "/models"], asked)
        (mount,) = [one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "models"]
        assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}


def test_other_weights_are_another_job() -> None:
    more = {"models": {"items": [{"name": "other", "repo": "a/b", "revision": "abc"}]}}
    first, second = (of_kind(render(values_of(BASE, one)), "Job")[0]["metadata"]["name"] for one in ({}, more))
    assert first != second


def test_weights_on_nodes_are_filled_by_a_daemon() -> None:
    objects = render(values_of(BASE, SWITCHES["weights: on nodes"]))
    (daemon,) = of_kind(objects, "DaemonSet")
    assert not of_kind(objects, "PersistentVolumeClaim") and not of_kind(objects, "Job")
    assert daemon["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "nvme"}
    dit = workers(BASE, SWITCHES["weights: on nodes"])["dit"]["template"]["spec"]
    assert dit["nodeSelector"]["disk"] == "nvme"
    assert volumes(dit)["models"]["hostPath"]["path"] == "/var/lib/skyreels/models"


def test_a_pod_of_the_cpu_profile_writes_its_own_weights() -> None:
    spec = workers("dev-cpu")["all"]["template"]["spec"]
    (fetch,) = spec["initContainers"]
    assert fetch["args"] == ["tiny-r2v"]
    assert volumes(spec)["models"] == {"name": "models", "emptyDir": {}}
    assert volumes(spec)["state"]["persistentVolumeClaim"]["claimName"] == "rel-skyreels-state"


# -- networks and selectors


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    exists = (one["key"] in labels for one in selector.get("matchExpressions", []))
    return selector.get("matchLabels", {}).items() <= labels.items() and all(exists)


def pods(objects: Iterable[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Labels of all pods."""
    found: dict[str, dict[str, str]] = {}
    for one in objects:
        if one["kind"] == "RayService":
            found |= {g.get("groupName", "head"): g["template"]["metadata"]["labels"] for g in groups_of(one)}
        elif one["kind"] in {"Job", "DaemonSet"}:
            found["fetch"] = one["spec"]["template"]["metadata"]["labels"]
        elif one["kind"] == "Pod":
            found["test"] = one["metadata"]["labels"]
    return found


def test_network_policies_choose_their_pods() -> None:
    objects = render(values_of(BASE))
    chosen = {
        policy["metadata"]["name"].removeprefix("rel-skyreels"): {
            name for name, labels in pods(objects).items() if selects(policy["spec"]["podSelector"], labels)
        }
        for policy in of_kind(objects, "NetworkPolicy")
    }
    ray = {"head", "edge", "encode", "dit", "decode"}
    assert chosen == {"": ray | {"fetch", "test"}, "-stores": ray, "-head": {"head"}, "-internet": {"edge", "fetch"}}


def test_the_dashboard_is_for_the_release_and_the_operator() -> None:
    """Whoever reaches the dashboard, the client server or Redis runs code."""
    (policy, *_) = of_kind(render(values_of(BASE, SWITCHES["network peers"])), "NetworkPolicy")
    inside, *others = policy["spec"]["ingress"]
    assert "ports" not in inside
    assert inside["from"] == [{"podSelector": policy["spec"]["podSelector"]}]
    opened = {json.dumps(one["from"]): {port["port"] for port in one["ports"]} for one in others}
    operator = next(ports for peers, ports in opened.items() if "kuberay" in peers)
    assert operator == {8265, 8000}
    assert all(not {8265, 6379, 10001} & ports for peers, ports in opened.items() if "kuberay" not in peers)


def test_ray_pods_may_go_where_a_site_says() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 4318, "protocol": "TCP"}]}
    objects = render(values_of(BASE, {"networkPolicy": {"egress": {"extra": [rule]}}}))
    (policy,) = [one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"].endswith("-stores")]
    assert rule in policy["spec"]["egress"]


def test_nobody_reaches_the_metadata_service() -> None:
    policies = {one["metadata"]["name"]: one for one in of_kind(render(values_of(BASE)), "NetworkPolicy")}
    (rule,) = policies["rel-skyreels-internet"]["spec"]["egress"]
    assert rule["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]


def test_two_releases_choose_different_pods() -> None:
    first, second = render(values_of(BASE)), render(values_of(BASE), release="other")
    for policy in of_kind(first, "NetworkPolicy"):
        assert not any(selects(policy["spec"]["podSelector"], labels) for labels in pods(second).values())


def test_budgets_are_whole_numbers_for_pods_that_are_there() -> None:
    objects = render(values_of(BASE, {"pools": {"dit": {"min": 2, "pdb": {"enabled": True, "minAvailable": 2}}}}))
    chosen = {}
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert "maxUnavailable" not in budget["spec"]
        (name,) = [n for n, labels in pods(objects).items() if selects(budget["spec"]["selector"], labels)]
        chosen[name] = budget["spec"]["minAvailable"]
    assert chosen == {"head": 1, "edge": 1, "dit": 2}


def test_metrics_are_scraped_from_ports_that_pods_name() -> None:
    objects = render(values_of(BASE, SWITCHES["monitoring"]))
    (monitor,) = of_kind(objects, "PodMonitor")
    wanted = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
    named = {
        port["name"] for g in groups_of(of_kind(objects, "RayService")[0])
        for port in g["template"]["spec"]["containers"][0]["ports"]
    }  # fmt: skip
    assert wanted == {"metrics", "as-metrics", "dash-metrics"} and wanted <= named
    scraped = {name for name, labels in pods(objects).items() if selects(monitor["spec"]["selector"], labels)}
    assert scraped == {"head", "edge", "encode", "dit", "decode"}


def test_the_api_is_routed_to_the_service_that_stays() -> None:
    (ingress,) = of_kind(render(values_of(BASE, SWITCHES["ingress"])), "Ingress")
    (route,) = of_kind(render(values_of(BASE, SWITCHES["route"])), "HTTPRoute")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "rel-skyreels-serve-svc", "port": {"number": 8000}}
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "rel-skyreels-serve-svc", "port": 8000}]
    assert route["spec"]["rules"][0]["timeouts"] == {"request": "300s"}


def test_kueue_admits_a_cluster_that_grows() -> None:
    metadata = rayservice(values_of(BASE, SWITCHES["Kueue"]))["metadata"]
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "video"
    assert metadata["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}


# -- dashboards, rules, notes


def test_dashboards_and_rules_are_passed_on_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "chart"
    shutil.copytree(CHART, folder, ignore=shutil.ignore_patterns("dashboards", "rules"))
    for name in ("dashboards", "rules"):
        (folder / name).mkdir()
    board = {"title": "A {{ model }}", "panels": [{"expr": 'x{a="$a"}', "size": 100000000}]}
    (folder / "dashboards/a_b.json").write_text(json.dumps(board))
    alert = {"alert": "A", "expr": "up == 0", "annotations": {"summary": "{{ $labels.pod }} is {{ $value }}"}}
    for name in ("one", "two"):
        (folder / f"rules/{name}.yaml").write_text(yaml.safe_dump({"groups": [{"name": name, "rules": [alert]}]}))
    objects = render(values_of("dev-cpu", SWITCHES["monitoring"]), folder=folder)
    (found,) = of_kind(objects, "ConfigMap")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["a_b.json"]) == board
    (rule,) = of_kind(objects, "PrometheusRule")
    assert [group["name"] for group in rule["spec"]["groups"]] == ["one", "two"]
    assert rule["spec"]["groups"][0]["rules"] == [alert]
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_extra_objects_are_templates() -> None:
    names = {
        one["metadata"]["name"] for one in of_kind(render(values_of(BASE, SWITCHES["extra objects"])), "ConfigMap")
    }
    assert names == {"rel-extra", "rel-text"}


def test_the_test_waits_for_every_stage() -> None:
    (pod,) = of_kind(render(values_of(BASE)), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["containers"][0]["args"] == ["http://rel-skyreels-serve-svc:8000/readyz"]
    assert not of_kind(render(values_of(BASE, SWITCHES["upgrade in steps"])), "Pod")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "port-forward service/rel-skyreels-serve-svc 8000"),
        (SWITCHES["ingress"], "https://video.example"),
        (SWITCHES["route"], "http://video.example"),
        (SWITCHES["upgrade in steps"], "Gateway rel-skyreels-gateway"),
        (SWITCHES["weights: on nodes"], "must allow hostPath volumes"),
        ({}, "dit: 1 to 4 x 4 h200"),
        ({}, "Nobody outside the release reaches the API"),
    ],
)
def test_notes(values: dict[str, Any], told: str) -> None:
    assert told in files(values_of(BASE, values))["skyreels/templates/NOTES.txt"]


def test_the_operators_role_is_what_the_operations_ask_for() -> None:
    (role,) = of_kind(render(values_of(BASE, SWITCHES["operator's role"])), "Role")
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {(kind.group, kind.plural, verb) for verb, kind in RIGHTS}


def test_the_alert_on_missing_weights_knows_who_fetches_them() -> None:
    (found,) = of_kind(render(values_of(BASE, SWITCHES["weights: on nodes"])), "DaemonSet")
    (alert,) = [alert for alert in ALERTS["skyreels-fleet"] if alert.name == "SkyreelsWeightsCacheMissing"]
    (pattern,) = re.findall('daemonset=~"(.+?)"', alert.expr)
    assert re.fullmatch(pattern, found["metadata"]["name"])
