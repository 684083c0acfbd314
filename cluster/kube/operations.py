"""What an operator does to an installation that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.errors import ConfigError, NotFound, Unavailable
from cluster.kube.client import Cluster, Object
from cluster.kube.kinds import RAY_CLUSTER, RAY_SERVICE, Manifest, bounds_of, groups_of, serve_config_of

DRAINED = "skyreels.ai/serve-config-before-drain"  # annotation with the text that `resume` puts back
SCHEDULER = "Scheduler"
Bounds = Mapping[str, tuple[int, int]]  # worker group → least and most replicas
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Applied:
    """An object that was applied, and whether that changed anything."""

    name: str
    changed: bool


def apply(cluster: Cluster, objects: Sequence[Manifest], *, force: bool = False) -> list[Applied]:
    """Server-side apply of every object in its order; what was there and is not given stays.

    Raises:
        Conflict: another manager owns a field that would change, and `force` is off; what came before is applied.
    """
    done: list[Applied] = []
    for manifest in objects:
        before = _version(cluster, manifest)
        after = cluster.apply(manifest, force=force)
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        done.append(Applied(name, before != after["metadata"]["resourceVersion"]))
    return done


def active_cluster(cluster: Cluster, service: str) -> str:
    """Name of the RayCluster that serves now. NotFound before there is one."""
    status = cluster.get(RAY_SERVICE, service).get("status", {})
    name = status.get("activeServiceStatus", {}).get("rayClusterName")
    if not name:
        raise NotFound(f"RayService {service} has no active cluster yet; `skyreels cluster wait {service}` first.")
    return str(name)


def scale_bounds(cluster: Cluster, service: str, wanted: Bounds | None = None) -> dict[str, tuple[int, int]]:
    """Sets the least and most replicas of worker groups in the live RayCluster, which the operator never does.

    Args:
        cluster: where.
        service: the RayService's name.
        wanted: worker group → bounds; those of the RayService's own spec if left out (after `helm upgrade`).

    Returns:
        The bounds that changed.

    Raises:
        ConfigError: a group is unknown, or its bounds are impossible.
        NotFound: no such RayService, or it has no active cluster yet.
    """
    if wanted is None:
        spec = cluster.get(RAY_SERVICE, service)["spec"]["rayClusterConfig"]
        wanted = {group["groupName"]: bounds_of(group) for group in groups_of(spec)}
    for name, (least, most) in wanted.items():
        if not 0 <= least <= most:
            raise ConfigError(f"Worker group {name}: {least} to {most} replicas are impossible; give 0 ≤ min ≤ max.")
    target = active_cluster(cluster, service)
    changed: dict[str, tuple[int, int]] = {}

    def make(found: Object) -> Object | None:
        changed.clear()
        groups = groups_of(found["spec"])
        known = [group["groupName"] for group in groups]
        if unknown := set(wanted) - set(known):
            raise ConfigError(
                f"RayCluster {target} has no worker group {', '.join(sorted(unknown))}; it has {', '.join(known)}."
            )
        for group in groups:
            bounds = wanted.get(group["groupName"])
            if bounds is not None and bounds != bounds_of(group):
                group["minReplicas"], group["maxReplicas"] = changed[group["groupName"]] = bounds
        return {"spec": {"workerGroupSpecs": groups}} if changed else None

    cluster.change(RAY_CLUSTER, target, make)
    return changed


def drain(cluster: Cluster, service: str) -> bool:
    """No stage is begun any more; those that run finish, new requests are accepted and wait. False when it is so
    already. Nothing is restarted: it is a live setting of the Serve config.

    Raises:
        ConfigError: the Serve config has no Scheduler.
        NotFound: no such RayService.
    """
    drained = False

    def make(found: Object) -> Object | None:
        nonlocal drained
        config = serve_config_of(found)
        scheduler = _scheduler(config)
        drained = not scheduler.get("user_config", {}).get("paused", False)
        if not drained:
            return None
        scheduler["user_config"] = {**scheduler.get("user_config", {}), "paused": True}
        return {
            "metadata": {"annotations": {DRAINED: found["spec"]["serveConfigV2"]}},
            "spec": {"serveConfigV2": yaml.safe_dump(config, sort_keys=False)},
        }

    cluster.change(RAY_SERVICE, service, make)
    return drained


def resume(cluster: Cluster, service: str) -> bool:
    """Ends a drain and a suspension. The Serve config gets back its former text, so that whoever applies it again
    finds nothing changed. False when neither was the case. NotFound; ConfigError.
    """
    resumed = False

    def make(found: Object) -> Object | None:
        nonlocal resumed
        before = found["metadata"].get("annotations", {}).get(DRAINED)
        config = serve_config_of(found)
        scheduler = _scheduler(config)
        paused = scheduler.get("user_config", {}).get("paused", False)
        patch: Object = {}
        if before is not None:
            patch["metadata"] = {"annotations": {DRAINED: None}}
        if paused:
            scheduler["user_config"] = {**scheduler["user_config"], "paused": False}
            text = before if before is not None and yaml.safe_load(before) == config else None
            patch["spec"] = {"serveConfigV2": text or yaml.safe_dump(config, sort_keys=False)}
        if found["spec"].get("suspend"):
            patch["spec"] = {**patch.get("spec", {}), "suspend": False}
        resumed = "spec" in patch
        return patch or None

    cluster.change(RAY_SERVICE, service, make)
    return resumed


def suspend(cluster: Cluster, service: str) -> None:
    """Ends all pods of a RayService: its GPUs are free. Jobs wait in the store. Drain first. NotFound."""
    cluster.change(RAY_SERVICE, service, lambda found: None if found["spec"].get("suspend") else _SUSPEND)


_SUSPEND: Object = {"spec": {"suspend": True}}


def wait(cluster: Cluster, service: str, *, timeout_s: float, report: Report) -> None:
    """Returns once a RayService serves what its spec says, and no older cluster is being replaced.

    Raises:
        NotFound: it is gone.
        Unavailable: it was not ready in time; the message says what it waited for.
    """
    seen = "it has not been looked at"
    for found in cluster.watch(RAY_SERVICE, service, timeout_s=timeout_s):
        if found is None:
            raise NotFound(f"RayService {service} does not exist in namespace {cluster.namespace}.")
        reason = unready(found)
        if reason is None:
            return
        if reason != seen:
            report(reason)
        seen = reason
    raise Unavailable(f"RayService {service} was not ready within {timeout_s:g} s: {seen}.", retry_after_s=60)


def unready(service: Manifest) -> str | None:
    """What a RayService still waits for; None when it serves its spec."""
    if service["spec"].get("suspend"):
        return "it is suspended"
    status = service.get("status", {})
    if int(status.get("observedGeneration", 0)) < int(service["metadata"].get("generation", 0)):
        return "the operator has not seen the newest spec"
    if pending := status.get("pendingServiceStatus", {}).get("rayClusterName"):
        return f"cluster {pending} is being prepared"
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    ready = conditions.get("Ready", {})
    if ready.get("status") != "True":
        return str(ready.get("message") or ready.get("reason") or "it is not ready")
    applications = status.get("activeServiceStatus", {}).get("applicationStatuses", {})
    for name, application in applications.items():
        if application.get("status") != "RUNNING":
            return f"application {name} is {application.get('status', 'unknown')}"
    return None if applications else "no application is deployed"


def _version(cluster: Cluster, manifest: Manifest) -> str | None:
    try:
        metadata = manifest["metadata"]
        found = cluster.get(cluster.kind_of(manifest), metadata["name"], namespace=metadata.get("namespace"))
    except NotFound:
        return None
    return str(found["metadata"]["resourceVersion"])


def _scheduler(config: dict[str, Any]) -> dict[str, Any]:
    for application in config.get("applications", ()):
        for deployment in application.get("deployments", ()):
            if deployment["name"] == SCHEDULER:
                found: dict[str, Any] = deployment
                return found
    raise ConfigError("The Serve config has no deployment Scheduler; is this a RayService of the skyreels chart?")
