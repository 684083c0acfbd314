"""One screen about an installation: whether it serves, what its deployments and worker groups are, what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.errors import Forbidden, NotFound
from cluster.kube.client import Cluster, Object
from cluster.kube.kinds import EVENT, POD, RAY_CLUSTER, RAY_SERVICE, bounds_of, groups_of, serve_config_of
from cluster.kube.operations import SCHEDULER, unready

MOST_EVENTS = 5


@dataclass(frozen=True, slots=True)
class Group:
    """A worker group: its bounds, what the spec of the live cluster asks for now, and its pods by phase."""

    name: str
    least: int
    most: int
    replicas: int
    pods: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """Everything on the screen. `waiting` is None when the RayService serves its spec."""

    service: str
    namespace: str
    waiting: str | None
    drained: bool
    active: str | None
    pending: str | None
    deployments: Mapping[str, str] = field(default_factory=dict)  # name → its status in Serve
    groups: Sequence[Group] = ()
    warnings: Sequence[str] = ()  # newest first
    hidden: Sequence[str] = ()  # what this user may not see


def read_status(cluster: Cluster, service: str) -> Status:
    """NotFound when there is no such RayService."""
    found = cluster.get(RAY_SERVICE, service)
    status = found.get("status", {})
    active = status.get("activeServiceStatus", {})
    name = active.get("rayClusterName")
    hidden: list[str] = []
    deployments = {
        deployment: told.get("status", "?") + (f": {told['message']}" if told.get("message") else "")
        for application in active.get("applicationStatuses", {}).values()
        for deployment, told in (application.get("serveDeploymentStatuses") or {}).items()
    }
    groups: list[Group] = []
    warnings: list[str] = []
    if name:
        try:
            groups = _groups(cluster, name)
        except (Forbidden, NotFound) as error:
            hidden.append(error.message)
    try:
        warnings = _warnings(cluster, {service, *([name] if name else [])})
    except Forbidden as error:
        hidden.append(error.message)
    return Status(
        service=service,
        namespace=cluster.namespace,
        waiting=unready(found),
        drained=_drained(found),
        active=name,
        pending=status.get("pendingServiceStatus", {}).get("rayClusterName"),
        deployments=deployments,
        groups=groups,
        warnings=warnings,
        hidden=hidden,
    )


def _groups(cluster: Cluster, name: str) -> list[Group]:
    live = cluster.get(RAY_CLUSTER, name)
    pods: dict[str, Counter[str]] = {}
    for pod in cluster.find(POD, selector=f"ray.io/cluster={name}"):
        group = pod["metadata"].get("labels", {}).get("ray.io/group", "?")
        pods.setdefault(group, Counter())[pod.get("status", {}).get("phase", "Unknown")] += 1
    groups = []
    for group in groups_of(live["spec"]):
        least, most = bounds_of(group)
        counts = pods.get(group["groupName"], Counter())
        groups.append(Group(group["groupName"], least, most, int(group.get("replicas") or least), dict(counts)))
    return groups


def _warnings(cluster: Cluster, names: set[str]) -> list[str]:
    """Of the RayService, its cluster and its pods, whose names begin with the cluster's."""
    found = [event for event in cluster.find(EVENT) if event.get("type") == "Warning" and _concerns(event, names)]
    found.sort(key=_when, reverse=True)
    return [f"{event['involvedObject']['name']} {event['reason']}: {event['message']}" for event in found[:MOST_EVENTS]]


def _concerns(event: Object, names: set[str]) -> bool:
    about = event.get("involvedObject", {}).get("name", "")
    return any(about == name or about.startswith(f"{name}-") for name in names)


def _when(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def _drained(service: Object) -> bool:
    for application in serve_config_of(service).get("applications", ()):
        for deployment in application.get("deployments", ()):
            if deployment["name"] == SCHEDULER:
                return bool(deployment.get("user_config", {}).get("paused", False))
    return False
