"""Everything about an installation on Kubernetes that is not the system's own configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cluster.chart import nodes, services
from cluster.chart.base import Plain, Section
from cluster.pools import Count


class Image(Section):
    """Of every pod."""

    repository: str = "skyreels-serve"
    tag: str | None = Field(default=None, description="none = the chart's appVersion")
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$", description="counts before the tag")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class AuthToken(Section):
    """Ray's shared token. Without it whoever reaches the dashboard runs code."""

    enabled: bool = True
    existing_secret: str | None = Field(default=None, description="Secret with auth_token; none = KubeRay makes one")


class GcsFaultTolerance(Section):
    """Keeps Ray's control state outside the head, so that workers outlive it."""

    enabled: bool = False
    backend: Literal["redis", "rocksdb"] = "redis"
    redis_address: str | None = None
    existing_secret: str | None = Field(default=None, description="Secret with the password of Redis")
    password_key: str = "redis-password"
    external_storage_namespace: str | None = Field(
        default=None, description="stays empty: both clusters of an upgrade would share it"
    )
    storage_size: str = Field(default="10Gi", description="of rocksdb")


class Ray(Section):
    version: str = Field(default="2.60.0", pattern=r"^\d+\.\d+\.\d+$")
    auth_token: AuthToken = AuthToken()
    gcs_fault_tolerance: GcsFaultTolerance = GcsFaultTolerance()
    ha_proxy: bool = Field(default=False, description="HAProxy in front of Serve's replicas instead of its own proxy")


class Drain(Section):
    """A pod that is told to stop finishes or hands back its work."""

    seconds: Count = 900


class Incremental(Section):
    gateway_class_name: str | None = None
    max_surge_percent: int = 100
    step_size_percent: int = 10
    interval_seconds: int = 30


class Upgrade(Section):
    """What a change of the cluster does. NewCluster needs the GPUs twice for a while."""

    strategy: Literal["NewCluster", "Incremental", "None"] = "NewCluster"
    deletion_delay_seconds: Count = Field(default=1800, description="the old cluster's time to finish its jobs")
    incremental: Incremental = Incremental()


class Security(Section):
    run_as_user: Annotated[int, Field(ge=1)] = 1000
    fs_group: Annotated[int, Field(ge=1)] = 1000
    read_only_root_filesystem: bool = True


class Installation(Section):
    """A site's or a profile's choices."""

    name_override: str | None = None
    fullname_override: str | None = None
    image: Image = Image()
    image_pull_secrets: tuple[Plain, ...] = ()
    env: tuple[Plain, ...] = Field(default=(), description="of every Ray pod")
    ray: Ray = Ray()
    drain: Drain = Drain()
    upgrade: Upgrade = Upgrade()
    head: nodes.Head = nodes.Head()
    autoscaler: nodes.Autoscaler = nodes.Autoscaler()
    accelerators: dict[nodes.Name, nodes.Accelerator] = Field(default_factory=dict)
    pools: dict[nodes.Name, nodes.Group] = Field(default_factory=dict, description="worker groups by name")
    models: services.Models = services.Models()
    state: services.State = services.State()
    job_store: services.JobStore = services.JobStore()
    object_store: services.ObjectStore = services.ObjectStore()
    service_accounts: nodes.Accounts = nodes.Accounts()
    operator_role: nodes.OperatorRole = nodes.OperatorRole()
    security: Security = Security()
    network_policy: services.NetworkPolicy = services.NetworkPolicy()
    ingress: services.Ingress = services.Ingress()
    http_route: services.HttpRoute = services.HttpRoute()
    monitoring: services.Monitoring = services.Monitoring()
    kueue: services.Kueue = services.Kueue()
    test: services.Test = services.Test()
    check_apis: bool = Field(default=True, description="refuse features whose API the cluster does not offer")
    extra_objects: tuple[Plain | str, ...] = Field(default=(), description="further objects, templated")
