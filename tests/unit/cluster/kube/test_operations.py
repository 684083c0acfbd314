"""Operations against a server over HTTP; the tests play the operator."""

from __future__ import annotations

import copy

import pytest
import yaml

from cluster.errors import ConfigError, Conflict, Forbidden, NotFound, Unavailable
from cluster.kube import operations
from cluster.kube.client import Cluster
from cluster.kube.kinds import RAY_CLUSTER, RAY_SERVICE, bounds_of, serve_config_of
from cluster.kube.status import read_status
from tests.kube.installation import LIVE, NAME, group, ray_cluster, ray_service, ready, serving
from tests.kube.server import KubeServer


def bounds(cluster: Cluster) -> dict[str, tuple[int, int]]:
    groups = cluster.get(RAY_CLUSTER, LIVE)["spec"]["workerGroupSpecs"]
    return {group["groupName"]: bounds_of(group) for group in groups}


def paused(cluster: Cluster) -> bool:
    (application,) = serve_config_of(cluster.get(RAY_SERVICE, NAME))["applications"]
    (scheduler,) = (one for one in application["deployments"] if one["name"] == "Scheduler")
    return bool(scheduler["user_config"]["paused"])


# -- apply -------------------------------------------------------------------------------------------------------
def test_apply_says_what_changed(cluster: Cluster) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    both = [config_map, ray_service()]
    names = [f"{one['kind']} {one['metadata']['name']}" for one in both]
    assert operations.apply(cluster, both) == [operations.Applied(name, True) for name in names]
    assert operations.apply(cluster, both) == [operations.Applied(name, False) for name in names]
    both[0] = config_map | {"data": {"a": "2"}}
    assert [one.changed for one in operations.apply(cluster, both)] == [True, False]


def test_apply_takes_what_another_manager_owns_only_by_force(server: KubeServer, cluster: Cluster) -> None:
    operations.apply(cluster, [ray_service()])
    server.edit(ray_service(), {"spec": {"serveConfigV2": "applications: []"}}, manager="helm")
    with pytest.raises(Conflict, match=r'"helm": \.spec\.serveConfigV2'):
        operations.apply(cluster, [ray_service()])
    operations.apply(cluster, [ray_service()], force=True)
    assert cluster.get(RAY_SERVICE, NAME)["spec"]["serveConfigV2"] == ray_service()["spec"]["serveConfigV2"]


# -- scale-bounds ------------------------------------------------------------------------------------------------
def test_bounds_reach_the_live_cluster_and_nothing_else_changes(server: KubeServer, cluster: Cluster) -> None:
    service = serving(server)
    before = cluster.get(RAY_CLUSTER, LIVE)
    assert operations.scale_bounds(cluster, NAME, {"dit": (2, 8)}) == {"dit": (2, 8)}
    assert bounds(cluster) == {"encode": (1, 4), "dit": (2, 8)}
    after = cluster.get(RAY_CLUSTER, LIVE)
    after["spec"]["workerGroupSpecs"][1] |= {"minReplicas": 1, "maxReplicas": 4}
    assert after["spec"] == before["spec"]
    assert cluster.get(RAY_SERVICE, NAME)["spec"] == server.read(service)["spec"]
    assert operations.scale_bounds(cluster, NAME, {"dit": (2, 8)}) == {}


def test_after_an_upgrade_the_bounds_are_those_of_the_service(server: KubeServer, cluster: Cluster) -> None:
    serving(server)
    upgraded = ray_service(group("encode", 0, 6), group("dit", 1, 4, gpus=8))
    operations.apply(cluster, [upgraded], force=True)
    assert operations.scale_bounds(cluster, NAME) == {"encode": (0, 6)}
    assert bounds(cluster) == {"encode": (0, 6), "dit": (1, 4)}


def test_the_autoscaler_may_write_at_the_same_time(server: KubeServer, cluster: Cluster) -> None:
    service = serving(server)
    replicas = iter((2, 3))

    def autoscale() -> None:
        groups = copy.deepcopy(server.read(ray_cluster(service))["spec"]["workerGroupSpecs"])
        groups[1]["replicas"] = next(replicas)
        server.edit(ray_cluster(service), {"spec": {"workerGroupSpecs": groups}})

    server.before(autoscale, method="PATCH", path="rayclusters", times=2)  # between its reading and its patch
    operations.scale_bounds(cluster, NAME, {"encode": (0, 9)})
    groups = server.read(ray_cluster(service))["spec"]["workerGroupSpecs"]
    assert bounds_of(groups[0]) == (0, 9)
    assert groups[1]["replicas"] == 3


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"gpu": (1, 2)}, r"no worker group gpu; it has encode, dit"),
        ({"dit": (3, 2)}, r"3 to 2 replicas are impossible"),
    ],
)
def test_impossible_bounds_are_refused_in_words(
    server: KubeServer, cluster: Cluster, wanted: dict[str, tuple[int, int]], message: str
) -> None:
    serving(server)
    with pytest.raises(ConfigError, match=message):
        operations.scale_bounds(cluster, NAME, wanted)
    assert bounds(cluster) == {"encode": (1, 4), "dit": (1, 4)}


def test_before_the_first_cluster_there_is_nothing_to_bound(server: KubeServer, cluster: Cluster) -> None:
    server.create(ray_service())
    with pytest.raises(NotFound, match="no active cluster yet"):
        operations.scale_bounds(cluster, NAME)


# -- drain and resume --------------------------------------------------------------------------------------------
def test_a_drain_is_a_live_setting_and_resume_puts_back_the_very_text(server: KubeServer, cluster: Cluster) -> None:
    serving(server)
    text = cluster.get(RAY_SERVICE, NAME)["spec"]["serveConfigV2"]
    assert operations.drain(cluster, NAME)
    assert paused(cluster)
    assert not operations.drain(cluster, NAME)
    assert read_status(cluster, NAME).drained
    assert operations.resume(cluster, NAME)
    found = cluster.get(RAY_SERVICE, NAME)
    assert found["spec"]["serveConfigV2"] == text
    assert operations.DRAINED not in found["metadata"].get("annotations", {})
    assert not operations.resume(cluster, NAME)


def test_what_was_upgraded_meanwhile_is_not_taken_back(server: KubeServer, cluster: Cluster) -> None:
    service = serving(server)
    operations.drain(cluster, NAME)
    config = serve_config_of(service)
    config["applications"][0]["args"]["tenant"] = "new"
    server.edit(service, {"spec": {"serveConfigV2": yaml.safe_dump(config)}}, manager="helm")
    assert not operations.resume(cluster, NAME)  # the upgrade has ended the drain
    assert serve_config_of(cluster.get(RAY_SERVICE, NAME)) == config
    assert operations.DRAINED not in cluster.get(RAY_SERVICE, NAME)["metadata"].get("annotations", {})


def test_resume_ends_a_suspension_too(server: KubeServer, cluster: Cluster) -> None:
    serving(server)
    operations.drain(cluster, NAME)
    operations.suspend(cluster, NAME)
    assert operations.unready(cluster.get(RAY_SERVICE, NAME)) == "it is suspended"
    assert operations.resume(cluster, NAME)
    assert not cluster.get(RAY_SERVICE, NAME)["spec"]["suspend"]
    assert not paused(cluster)


def test_another_ray_service_cannot_be_drained(server: KubeServer, cluster: Cluster) -> None:
    server.create(ray_service(serveConfigV2="applications: [{name: a, deployments: [{name: X}]}]"))
    with pytest.raises(ConfigError, match="no deployment Scheduler"):
        operations.drain(cluster, NAME)


def test_without_rights_nothing_is_changed(server: KubeServer, cluster: Cluster) -> None:
    serving(server)
    server.denied = {("patch", "rayservices")}
    with pytest.raises(Forbidden, match="patch rayservices"):
        operations.drain(cluster, NAME)
    assert not paused(cluster)


# -- wait --------------------------------------------------------------------------------------------------------
def test_wait_follows_the_operator_to_the_end(server: KubeServer, cluster: Cluster) -> None:
    service = ray_service()
    server.create(service)
    told: list[str] = []

    def operate(reason: str) -> None:
        """One step of the operator for each thing that is waited for."""
        told.append(reason)
        match len(told):
            case 1:
                server.edit(service, {"status": {"observedGeneration": 1}})
            case 2:
                server.edit(service, {"status": {"pendingServiceStatus": {"rayClusterName": LIVE}}})
                server.forget_history()
            case 3:
                ready(server, service, pendingServiceStatus=None)

    operations.wait(cluster, NAME, timeout_s=20, report=operate)
    assert told == ["the operator has not seen the newest spec", "it is not ready", f"cluster {LIVE} is being prepared"]


def test_wait_says_what_it_waited_for(server: KubeServer, cluster: Cluster) -> None:
    service = serving(server)
    application = {"skyreels": {"status": "DEPLOY_FAILED"}}
    server.edit(service, {"status": {"activeServiceStatus": {"applicationStatuses": application}}})
    with pytest.raises(Unavailable, match=r"within 0\.3 s: application skyreels is DEPLOY_FAILED"):
        operations.wait(cluster, NAME, timeout_s=0.3, report=lambda _: None)


def test_nobody_waits_for_what_does_not_exist(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="nobody does not exist in namespace video"):
        operations.wait(cluster, "nobody", timeout_s=5, report=lambda _: None)


# -- status ------------------------------------------------------------------------------------------------------
def test_status_is_everything_on_one_screen(server: KubeServer, cluster: Cluster) -> None:
    serving(server)
    for name, of, phase in (("a", "dit", "Running"), ("b", "dit", "Pending"), ("c", "encode", "Running")):
        labels = {"ray.io/cluster": LIVE, "ray.io/group": of}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}}
        server.create(pod | {"status": {"phase": phase}})
    for name, about, kind in (
        ("e1", f"{LIVE}-dit-x", "Warning"),
        ("e2", "elsewhere", "Warning"),
        ("e3", NAME, "Normal"),
    ):
        event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "type": kind}
        server.create(event | {"reason": "Failed", "message": "no GPU", "involvedObject": {"name": about}})
    found = read_status(cluster, NAME)
    assert (found.waiting, found.active, found.pending, found.drained) == (None, LIVE, None, False)
    assert found.deployments == {"Api": "HEALTHY", "Denoiser": "UPDATING: 1 of 2"}
    told = {group.name: (group.least, group.replicas, group.most, dict(group.pods)) for group in found.groups}
    assert told == {"encode": (1, 1, 4, {"Running": 1}), "dit": (1, 1, 4, {"Running": 1, "Pending": 1})}
    assert list(found.warnings) == [f"{LIVE}-dit-x Failed: no GPU"]
    assert not found.hidden


def test_status_shows_what_it_may(server: KubeServer, cluster: Cluster) -> None:
    serving(server)
    server.denied = {("list", "pods"), ("list", "events")}
    found = read_status(cluster, NAME)
    assert found.waiting is None
    assert len(found.hidden) == 2
    assert not found.groups
