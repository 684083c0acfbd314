"""Pods and the nodes they ask for: kinds of accelerators, worker groups, the head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cluster.chart.base import Annotations, Labels, Natural, Plain, Quantity, Section, Toleration
from cluster.pools import Count, Positive

POOL_LABEL = "skyreels.ai/pool"
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]


class Accelerator(Section):
    """A kind of GPU node."""

    resource_name: str = Field(default="nvidia.com/gpu", description="what the device plugin calls one GPU")
    per_node: Count = Field(default=8, description="GPUs of a node")
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    runtime_class_name: str | None = None


class Bounds(Section):
    """A pod disruption budget. Ray pods have no scale subresource, so only a whole number works."""

    enabled: bool = False
    min_available: Count = 1


class Group(Section):
    """A worker group: equal pods that Serve deployments ask for by `skyreels.ai/pool`."""

    order: Natural = Field(
        default=0, description="place among the groups; a new group goes to the end, or KubeRay builds a new cluster"
    )
    accelerator: str | None = Field(default=None, description="a key of accelerators; none = no GPU")
    gpus: Natural = Field(default=0, description="of one pod")
    capacity: Literal["on-demand", "spot"] = "on-demand"
    cpus: Positive = 4
    memory: Quantity = "16Gi"
    shm: Quantity | None = Field(default=None, description="size of /dev/shm; counts against memory")
    min: Natural = Field(default=1, description="replicas of the group; one replica is hostsPerReplica pods")
    max: Count = 1
    hosts_per_replica: Count = Field(default=1, description="pods that come and go together; above 1, whole nodes")
    fabric_topology_key: str | None = Field(
        default=None, description="node label of a fast network; hosts of a replica share its value"
    )
    models: bool = Field(default=True, description="mount the weights")
    internet: bool = Field(default=False, description="may fetch inputs and deliver webhooks outside the cluster")
    idle_timeout_seconds: Natural | None = None
    priority: int | None = Field(default=None, description="among groups that fit, the highest is scaled first")
    labels: Labels = Field(default_factory=dict, description="further Ray labels of its nodes")
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    env: tuple[Plain, ...] = ()
    priority_class_name: str | None = None
    pdb: Bounds = Bounds()


class Head(Section):
    """The one pod of Ray's control plane. It runs no replica."""

    cpus: Positive = 2
    memory: Quantity = "8Gi"
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    priority_class_name: str | None = None
    pdb: Bounds = Bounds(enabled=True)


class Autoscaler(Section):
    """Ray's autoscaler, a container of the head."""

    enabled: bool = True
    idle_timeout_seconds: Natural = 900
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"] = "Default"
    cpu: Quantity = "500m"
    memory: Quantity = "512Mi"


class Account(Section):
    annotations: Annotations = Field(default_factory=dict, description="as for workload identity")


class Accounts(Section):
    """The head's account may do what KubeRay's autoscaler needs; the workers' account may do nothing."""

    head: Account = Account()
    worker: Account = Account()


class OperatorRole(Section):
    """A role with the verbs that `skyreels cluster` needs in this namespace, and who has it."""

    create: bool = False
    subjects: tuple[Plain, ...] = ()
