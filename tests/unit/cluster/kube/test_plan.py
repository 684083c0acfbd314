"""What a change does to what runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cluster.config import profile
from cluster.errors import ConfigError
from cluster.kube.client import Cluster
from cluster.kube.kinds import ray_service as only
from cluster.kube.kinds import read_manifests, serve_config_of
from cluster.kube.plan import Effect, plan, read_plan
from cluster.kube.serve_diff import serve_changes
from cluster.serve_config import serve_config
from tests.kube.installation import group, ray_service
from tests.kube.server import KubeServer

Manifest = dict[str, Any]
GROUPS = (group("encode", 1, 4), group("dit", 2, 4, gpus=8, hosts=2))


def edited(change: Callable[[dict[str, Any]], None], service: Manifest | None = None) -> Manifest:
    """With another Serve config."""
    service = copy.deepcopy(service or ray_service(*GROUPS))
    config = serve_config_of(service)
    change(config["applications"][0])
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    return service


def deployment(application: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in application["deployments"] if one["name"] == name)
    return found


def of(new: Manifest, live: Manifest | None = None) -> tuple[Effect, int, list[str]]:
    found = plan(live or ray_service(*GROUPS), new)
    return found.effect, found.gpus, list(found.lines)


def test_nothing_changes_by_a_chart_version() -> None:
    new = ray_service(*GROUPS)
    new["metadata"]["labels"]["helm.sh/chart"] = "skyreels-9"
    assert of(new) == (Effect.NOTHING, 0, ["nothing changes"])


def test_a_first_installation_needs_all_its_gpus() -> None:
    found = plan(None, ray_service(*GROUPS))
    assert (found.effect, found.gpus) == (Effect.CREATE, 32)
    assert list(found.lines) == ["create: RayService studio, +32 GPUs"]


def test_an_image_is_a_new_cluster_with_its_gpus_and_their_time() -> None:
    new = ray_service(*GROUPS, rayClusterDeletionDelaySeconds=1800)
    new["spec"]["rayClusterConfig"]["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]["image"] = "skyreels:2"
    effect, gpus, lines = of(new)
    assert (effect, gpus) == (Effect.NEW_CLUSTER, 32)
    assert lines[0] == "NEW CLUSTER: +32 GPUs until the new one is ready and 30 min more"
    assert lines[1].startswith("because of workerGroupSpecs[1].template.spec.containers[0].image")


def test_without_an_upgrade_strategy_nothing_follows() -> None:
    new = ray_service(*GROUPS, upgradeStrategy={"type": "None"})
    new["spec"]["rayClusterConfig"]["rayVersion"] = "2.61.0"
    effect, gpus, (line,) = of(new)
    assert (effect, gpus) == (Effect.NOTHING, 0)
    assert "upgradeStrategy is None" in line
    assert "rayVersion" in line


def test_sizes_are_in_place() -> None:
    new = edited(lambda app: deployment(app, "Denoiser").update(num_replicas=3, graceful_shutdown_timeout_s=99))
    assert of(new) == (Effect.IN_PLACE, 0, ["in place: update Denoiser"])


def test_placement_restarts_its_deployment_alone() -> None:
    new = edited(lambda app: deployment(app, "TextEncoder")["ray_actor_options"].update(num_cpus=3))
    assert of(new) == (Effect.RESTART, 0, ["replica restart: TextEncoder"])


def test_an_argument_restarts_everything() -> None:
    new = edited(lambda app: app["args"]["denoise"].update(snapshot_s=5))
    effect, _, (line,) = of(new)
    assert effect is Effect.RESTART
    assert line == "replica restart: Api, Courier, Denoiser, Scheduler, TextEncoder, VaeRoom"


def test_bounds_need_a_command_of_their_own() -> None:
    new = ray_service(GROUPS[0], group("dit", 2, 9, gpus=8, hosts=2))
    effect, gpus, (line,) = of(new)
    assert (effect, gpus) == (Effect.IN_PLACE, 0)
    assert line.startswith("in place, by scale-bounds: worker group dit from 2–4 to 2–9 replicas")


def test_a_worker_group_may_be_appended_but_not_inserted() -> None:
    assert of(ray_service(*GROUPS, group("spot", 0, 2)))[2] == ["in place: add worker group spot, 0 to 2 replicas"]
    assert of(ray_service(group("spot", 0, 2), *GROUPS))[0] is Effect.NEW_CLUSTER
    assert of(ray_service(GROUPS[0]))[0] is Effect.NEW_CLUSTER


def test_ports_wait_for_the_next_cluster() -> None:
    live = ray_service(*GROUPS)
    new = copy.deepcopy(live)
    new["spec"]["serveConfigV2"] = yaml.safe_dump(serve_config_of(live) | {"http_options": {"port": 9000}})
    (line,) = of(new, live)[2]
    assert line.startswith("not followed by the running cluster: http_options")


def test_the_emitted_sizes_are_in_place() -> None:
    """What the configuration calls a size is one to Serve too."""
    config = profile("laptop")
    more = tuple(pool.model_copy(update={"replicas": 3}) for pool in config.pools)
    change = serve_changes(serve_config(config), serve_config(config.model_copy(update={"pools": more})))
    assert (change.restarted, change.updated) == ((), ("Denoiser", "TextEncoder", "VaeRoom"))


def test_deployments_come_and_go() -> None:
    one = {"applications": [{"name": "a", "deployments": [{"name": "X"}]}]}
    two = {"applications": [{"name": "a", "deployments": [{"name": "Y"}]}]}
    change = serve_changes(one, two)
    assert (change.added, change.removed, change.restarted) == (("Y",), ("X",), ())
    assert not serve_changes(one, one)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("just text", "without apiVersion"),
        ("{apiVersion: v1, kind: Pod}", "no metadata.name"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: x}}", "holds 0 RayServices"),
    ],
)
def test_what_is_no_rendered_chart_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        only(read_manifests(text, "here"), "here")


def test_lists_are_opened() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    text = yaml.safe_dump_all([None, {"apiVersion": "v1", "kind": "List", "items": [pod]}, pod])
    assert read_manifests(text, "here") == [pod, pod]


def test_defaults_that_the_server_fills_in_are_no_change(server: KubeServer, cluster: Cluster) -> None:
    server.create(ray_service(*GROUPS))
    stored = server.read(ray_service(*GROUPS))
    assert stored["spec"]["rayClusterConfig"] != ray_service(*GROUPS)["spec"]["rayClusterConfig"]
    assert read_plan(cluster, ray_service(*GROUPS)).effect is Effect.NOTHING
    assert read_plan(cluster, ray_service(GROUPS[0], group("dit", 1, 4, gpus=4, hosts=2))).gpus == 8
    assert server.read(stored) == stored
    assert [path for method, path in server.requests if method != "GET" and "dryRun=All" not in path] == []


def test_what_the_server_would_refuse_is_no_plan(server: KubeServer, cluster: Cluster) -> None:
    broken = ray_service(group("dit", 1, 4) | {"numOfHosts": "two"})
    with pytest.raises(ConfigError, match=r"numOfHosts"):
        read_plan(cluster, broken)
