"""What applying a rendered chart would do to what runs: nothing, in place, replicas new, or a second cluster.

A second cluster is built beside the first and needs GPUs of its own until the first is deleted, so it is told with
their number and for how long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cluster.errors import NotFound
from cluster.kube.client import Cluster
from cluster.kube.fingerprint import differences, keeps_cluster
from cluster.kube.kinds import RAY_SERVICE, Manifest, bounds_of, gpus_of, groups_of, named, serve_config_of
from cluster.kube.serve_diff import serve_changes

DELETION_DELAY_S = 60  # KubeRay's own


class Effect(StrEnum):
    """The heaviest consequence of a change, from none to a second cluster."""

    NOTHING = "nothing"
    IN_PLACE = "in place"
    RESTART = "replica restart"
    CREATE = "create"
    NEW_CLUSTER = "NEW CLUSTER"


@dataclass(frozen=True, slots=True)
class Plan:
    """The effect, the GPUs that it needs beside those in use, and a line per consequence."""

    effect: Effect
    gpus: int = 0
    lines: Sequence[str] = field(default_factory=tuple)


def read_plan(cluster: Cluster, new: Manifest) -> Plan:
    """The plan for a cluster. What is rendered is completed by the server first: what lives there has its defaults, and
    a default is no change.

    Raises:
        ConfigError: the server would refuse it, or a Serve config is no YAML.
        Forbidden: the user may not get or create RayServices.
    """
    completed = cluster.completed(new)
    metadata = new["metadata"]
    try:
        live = cluster.get(RAY_SERVICE, metadata["name"], namespace=metadata.get("namespace"))
    except NotFound:
        live = None
    return plan(live, completed)


def plan(live: Manifest | None, new: Manifest) -> Plan:
    """What becomes of the live RayService when `new` is applied. ConfigError for a Serve config that is no YAML."""
    spec = new["spec"]["rayClusterConfig"]
    if live is None:
        gpus = gpus_of(spec)
        return Plan(Effect.CREATE, gpus, (f"create: {named(new)}, +{gpus} GPUs",))
    if not keeps_cluster(live, new):
        return _new_cluster(live, new)
    lines: list[str] = []
    change = serve_changes(serve_config_of(live), serve_config_of(new))
    if change.restarted:
        lines.append(f"replica restart: {', '.join(change.restarted)}")
    for verb, names in (("update", change.updated), ("add", change.added), ("remove", change.removed)):
        if names:
            lines.append(f"in place: {verb} {', '.join(names)}")
    if change.ignored:
        lines.append(f"not followed by the running cluster: {', '.join(change.ignored)}; Serve reads them at its start")
    old_groups = {group["groupName"]: group for group in groups_of(live["spec"]["rayClusterConfig"])}
    for group in groups_of(spec):
        name = group["groupName"]
        if name not in old_groups:
            least, most = bounds_of(group)
            lines.append(f"in place: add worker group {name}, {least} to {most} replicas")
        elif (before := bounds_of(old_groups[name])) != (after := bounds_of(group)):
            lines.append(
                f"in place, by scale-bounds: worker group {name} from {before[0]}–{before[1]} to {after[0]}–{after[1]} "
                "replicas; the operator does not carry bounds over to a running cluster"
            )
    if live["spec"] != new["spec"] and not lines:
        lines.append("in place: settings of the RayService")
    effect = Effect.RESTART if change.restarted else Effect.IN_PLACE if lines else Effect.NOTHING
    return Plan(effect, 0, tuple(lines) or ("nothing changes",))


def _new_cluster(live: Manifest, new: Manifest) -> Plan:
    gpus = gpus_of(new["spec"]["rayClusterConfig"])
    delay_s = int(new["spec"].get("rayClusterDeletionDelaySeconds", DELETION_DELAY_S))
    paths = differences(live, new) or ["a worker group was removed"]
    strategy = new["spec"].get("upgradeStrategy", {}).get("type", "NewCluster")
    if strategy == "None":
        why = f"nothing happens: upgradeStrategy is None, so a change of {', '.join(paths)} waits for a new RayService"
        return Plan(Effect.NOTHING, 0, (why,))
    return Plan(
        Effect.NEW_CLUSTER,
        gpus,
        (
            f"NEW CLUSTER: +{gpus} GPUs until the new one is ready and {_told(delay_s)} more",
            *(f"because of {path}" for path in paths),
        ),
    )


def _told(seconds: int) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds} s"
