"""The client against a server over HTTP: what is repeated, what refusals mean, watches, ownership."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError, Conflict, Forbidden, NotFound, Unauthenticated, Unavailable
from cluster.kube.client import ATTEMPTS, CONFLICTS, Cluster
from cluster.kube.kinds import POD, RAY_SERVICE, Kind
from tests.kube.installation import NAME, ray_service
from tests.kube.server import KubeServer

CONFIG_MAP = Kind("", "v1", "configmaps")


def config_map(name: str = "c", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


# -- who asks ----------------------------------------------------------------------------------------------------
def test_without_kubeconfig_and_pod_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"no kubeconfig.*KUBECONFIG"):
        Cluster.connect()


def test_a_context_that_is_not_there_is_told(server: KubeServer, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(server.kubeconfig())
    with pytest.raises(ConfigError, match="prod"):
        Cluster.connect(kubeconfig_path=str(path), context="prod")
    assert Cluster.connect(kubeconfig_path=str(path), context="test").namespace == "video"
    assert Cluster.connect(kubeconfig_path=str(path), namespace="other").namespace == "other"


def test_a_wrong_token_is_no_right(server: KubeServer, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(server.kubeconfig(token="old"))
    with pytest.raises(Unauthenticated, match="log in"):
        Cluster.connect(kubeconfig_path=str(path)).version()


# -- objects -----------------------------------------------------------------------------------------------------
def test_objects_are_found_by_label(server: KubeServer, cluster: Cluster) -> None:
    for name, labels in (("a", {"app": "x", "tier": "gpu"}), ("b", {"app": "x"}), ("c", {"app": "y"})):
        server.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {}})
    server.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d", "namespace": "far"}, "spec": {}})

    def names(selector: str | None, **scope: bool) -> list[str]:
        return [pod["metadata"]["name"] for pod in cluster.find(POD, selector=selector, **scope)]

    assert names("app=x") == ["a", "b"]
    assert names("app in (x, y),!tier") == ["b", "c"]
    assert names("app!=x") == ["c"]
    assert names(None) == ["a", "b", "c"]
    assert len(names(None, everywhere=True)) == 4


def test_an_unknown_name_and_an_unknown_kind_are_told_apart(server: KubeServer, cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="nobody"):
        cluster.get(RAY_SERVICE, "nobody")
    with pytest.raises(ConfigError, match=r"no PodMonitor in monitoring.coreos.com/v1; install its CRD"):
        cluster.apply({"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "m"}})


def test_what_the_definition_refuses_names_the_field(cluster: Cluster) -> None:
    broken = ray_service()
    broken["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"] = "many"
    with pytest.raises(ConfigError, match=r"workerGroupSpecs\.0\.minReplicas: .*integer"):
        cluster.apply(broken)


def test_what_a_rule_of_the_definition_refuses_is_told_when_it_changes(server: KubeServer, cluster: Cluster) -> None:
    service = ray_service()
    options = {"backend": "rocksdb", "storage": {"claimName": "gcs"}}
    service["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"] = options
    cluster.apply(service)
    options["storage"] = {"claimName": "other"}
    cluster.apply(service)
    options["backend"] = "redis"
    with pytest.raises(ConfigError, match=r"gcsFaultToleranceOptions\.backend: .*immutable"):
        cluster.apply(service)


# -- server-side apply -------------------------------------------------------------------------------------------
def test_apply_keeps_what_others_set_and_removes_what_it_drops(server: KubeServer, cluster: Cluster) -> None:
    cluster.apply(config_map(a="1", b="2"))
    server.edit(config_map(), {"data": {"theirs": "3"}})
    cluster.apply(config_map(a="1"))
    assert cluster.get(CONFIG_MAP, "c")["data"] == {"a": "1", "theirs": "3"}


def test_a_field_of_another_manager_is_taken_only_by_force(server: KubeServer, cluster: Cluster) -> None:
    cluster.apply(config_map(a="1"))
    server.edit(config_map(), {"data": {"a": "2"}}, manager="kubectl")
    with pytest.raises(Conflict, match=r'conflict with "kubectl": \.data\.a'):
        cluster.apply(config_map(a="1"))
    assert cluster.get(CONFIG_MAP, "c")["data"] == {"a": "2"}
    cluster.apply(config_map(a="2"))  # the same value is no conflict
    server.edit(config_map(), {"data": {"a": "3"}}, manager="kubectl")
    cluster.apply(config_map(a="1"), force=True)
    assert cluster.get(CONFIG_MAP, "c")["data"] == {"a": "1"}
    cluster.apply(config_map(a="4"))  # it is ours again


def test_a_dry_run_leaves_nothing(cluster: Cluster) -> None:
    assert cluster.apply(config_map(a="1"), dry_run=True)["data"] == {"a": "1"}
    with pytest.raises(NotFound):
        cluster.get(CONFIG_MAP, "c")


# -- what is repeated --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [429, 500, 503, None])
def test_passing_trouble_is_repeated(server: KubeServer, cluster: Cluster, status: int | None) -> None:
    server.inject(status=status, times=2, path="configmaps")
    cluster.apply(config_map(a="1"))
    assert cluster.get(CONFIG_MAP, "c")["data"] == {"a": "1"}
    assert len([path for method, path in server.requests if method == "PATCH"]) == 3


def test_lasting_trouble_ends_and_says_so(server: KubeServer, cluster: Cluster) -> None:
    server.inject(status=503, times=100)
    with pytest.raises(Unavailable, match="injected"):
        cluster.version()
    assert len(server.requests) == ATTEMPTS


def test_a_server_that_hangs_is_given_up(server: KubeServer, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(server.kubeconfig())
    cluster = Cluster.connect(kubeconfig_path=str(path), timeout_s=0.2, backoff_s=0.01)
    server.inject(hang_s=0.6, times=1)
    assert cluster.version() == "v1.33.1"
    server.inject(hang_s=0.6, times=100)
    with pytest.raises(Unavailable, match="ReadTimeoutError"):
        cluster.version()


def test_a_lost_answer_does_not_do_things_twice(server: KubeServer, cluster: Cluster) -> None:
    server.inject(status=None, method="PATCH", before=False)
    applied = cluster.apply(config_map(a="1"))
    assert applied["metadata"]["generation"] == server.read(config_map())["metadata"]["generation"] == 1


def test_a_change_is_made_anew_on_what_others_wrote(server: KubeServer, cluster: Cluster) -> None:
    cluster.apply(config_map(count="0"))
    interfere = iter(range(3))

    def more(found: dict[str, Any]) -> dict[str, Any]:
        if next(interfere, None) is not None:
            server.edit(found, {"data": {"count": str(int(found["data"]["count"]) + 10)}})
        return {"data": {"count": str(int(found["data"]["count"]) + 1)}}

    assert cluster.change(CONFIG_MAP, "c", more)["data"] == {"count": "31"}


def test_who_is_never_first_gives_up(server: KubeServer, cluster: Cluster) -> None:
    cluster.apply(config_map(count="0"))
    tries = []

    def late(found: dict[str, Any]) -> dict[str, Any]:
        tries.append(found)
        server.edit(found, {"data": {"count": str(len(tries))}})
        return {"data": {"count": "mine"}}

    with pytest.raises(Conflict, match="by others all the time"):
        cluster.change(CONFIG_MAP, "c", late)
    assert len(tries) == CONFLICTS


def test_a_refusal_without_rights_names_verb_and_object(server: KubeServer, cluster: Cluster) -> None:
    server.denied = {("patch", "*"), ("list", "pods")}
    with pytest.raises(Forbidden, match=r"may not patch configmaps c.*Grant the verb"):
        cluster.apply(config_map())
    with pytest.raises(Forbidden, match="list pods"):
        cluster.find(POD)
    assert len([1 for method, _ in server.requests if method == "PATCH"]) == 1  # nobody grants it meanwhile
    assert cluster.may("get", RAY_SERVICE)
    assert not cluster.may("patch", RAY_SERVICE)


# -- watches -----------------------------------------------------------------------------------------------------
def watched(cluster: Cluster, seen: Callable[[str | None], bool], timeout_s: float = 20.0) -> list[str | None]:
    """Values of a config map as they are told, until `seen` says so."""
    told: list[str | None] = []
    for found in cluster.watch(CONFIG_MAP, "c", timeout_s=timeout_s):
        told.append(None if found is None else found["data"]["step"])
        if seen(told[-1]):
            break
    return told


def test_a_watch_tells_each_change_once(server: KubeServer, cluster: Cluster) -> None:
    server.create(config_map("other", step="x"))

    acts = [
        lambda: server.create(config_map(step="1")),
        lambda: (
            server.edit(config_map("other"), {"data": {"step": "y"}})
            and server.edit(config_map(), {"data": {"step": "2"}})
        ),
        lambda: server.remove(config_map()),
    ]

    def seen(_: str | None) -> bool:
        if not acts:
            return True
        acts.pop(0)()
        return False

    assert watched(cluster, seen) == [None, "1", "2", None]


def test_a_forgotten_watch_begins_anew_and_misses_nothing(server: KubeServer, cluster: Cluster) -> None:
    server.create(config_map(step="0"))

    def seen(step: str | None) -> bool:
        if step in {"0", "1", "2"}:
            server.edit(config_map(), {"data": {"step": str(int(step) + 1)}})
            server.forget_history()  # 410 for the watch that is open
        return step == "3"

    assert watched(cluster, seen) == ["0", "1", "2", "3"]
    assert len([path for _, path in server.requests if "watch=true" not in path]) >= 4  # lists


def test_bookmarks_carry_a_quiet_watch_over_what_is_forgotten(server: KubeServer, cluster: Cluster) -> None:
    """Only others' objects change; without bookmarks the watch's version would be too old when it is begun anew."""
    server.create(config_map(step="0"))
    server.create(config_map("noise", step="0"))
    lists = lambda: len([p for _, p in server.requests if "fieldSelector" in p and "watch=true" not in p])  # noqa: E731

    def noise() -> None:
        for step in range(20):
            server.edit(config_map("noise"), {"data": {"step": str(step + 1)}})
        server.edit(config_map(), {"data": {"step": "end"}})

    timer = threading.Timer(0.3, noise)
    timer.start()
    assert watched(cluster, lambda step: step == "end") == ["0", "end"]
    timer.join()
    assert lists() == 1


def test_a_watch_that_breaks_is_begun_anew(server: KubeServer, cluster: Cluster) -> None:
    server.create(config_map(step="0"))
    server.inject(status=None, path="watch=true", times=2)
    server.inject(status=500, path="watch=true", times=1)

    def seen(step: str | None) -> bool:
        if step == "0":
            server.edit(config_map(), {"data": {"step": "1"}})
        return step == "1"

    assert watched(cluster, seen) == ["0", "1"]


def test_a_watch_ends_with_its_time(server: KubeServer, cluster: Cluster) -> None:
    server.create(ray_service())
    assert len(list(cluster.watch(RAY_SERVICE, NAME, timeout_s=0.3))) == 1
