"""What the installation uses and who reaches it: weights, stores, networks, monitoring."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cluster.chart.base import Annotations, Labels, Natural, Plain, Quantity, Section, Toleration
from cluster.pools import Count


class ModelSource(Section):
    """One checkpoint below the mount path."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,60}$", description="its folder")
    repo: str | None = Field(default=None, description="hub repository; none = toy weights, written in place")
    revision: str = "main"


class Claim(Section):
    existing_claim: str | None = None
    storage_class_name: str | None = None
    size: Quantity = "200Gi"
    access_modes: tuple[str, ...] = ("ReadWriteMany",)


class HostCache(Section):
    """Weights on the nodes' own disks. A hostPath volume is refused by the restricted Pod Security Standard."""

    path: str = "/var/lib/skyreels/models"
    fill: bool = Field(default=True, description="a DaemonSet fetches what is missing")
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


class ModelImage(Section):
    """An OCI image with the weights, mounted as a volume. Kubernetes 1.35 or newer."""

    reference: str | None = Field(default=None, description="with its digest")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class Fetch(Section):
    """Downloads from the hub."""

    enabled: bool = True
    token_secret: str | None = Field(default=None, description="Secret with a hub token")
    token_key: str = "token"
    cpu: Quantity = "2"
    memory: Quantity = "4Gi"


class Models(Section):
    """Where weights come from: a shared volume, the nodes' disks, an image, or each pod's own download."""

    source: Literal["pvc", "hostCache", "image", "initDownload"] = "pvc"
    mount_path: str = "/models"
    items: tuple[ModelSource, ...] = ()
    pvc: Claim = Claim()
    host_cache: HostCache = HostCache()
    image: ModelImage = ModelImage()
    fetch: Fetch = Fetch()


class State(Section):
    """A volume for the state directory of an installation whose stores are files; one pod only."""

    persistent: bool = False
    path: str = "/var/lib/skyreels"
    claim: Claim = Claim(size="20Gi", access_modes=("ReadWriteOnce",))


class JobStore(Section):
    """PostgreSQL. What the URL in the configuration leaves out; the password comes from a Secret."""

    host: str | None = None
    port: Count = 5432
    user: str | None = None
    existing_secret: str | None = None
    password_key: str = "password"


class ObjectStore(Section):
    """Credentials of the artifacts' bucket; none = those of the workload's identity."""

    existing_secret: str | None = None
    access_key_id_key: str = "access-key-id"
    secret_access_key_key: str = "secret-access-key"


class Egress(Section):
    """Where pods may go. Peers are NetworkPolicyPeers."""

    api_server_cidrs: tuple[str, ...] = ("0.0.0.0/0",)
    api_server_ports: tuple[int, ...] = (443, 6443)
    stores: tuple[Plain, ...] = Field(
        default=(), description="of PostgreSQL, Redis and the object store; none = any address"
    )
    store_ports: tuple[int, ...] = (443, 5432, 6379)
    internet_except: tuple[str, ...] = Field(
        default=("169.254.0.0/16",), description="never reached from pods with `internet`; add the cluster's networks"
    )
    internet_ports: tuple[int, ...] = (80, 443)
    extra: tuple[Plain, ...] = Field(
        default=(), description="further NetworkPolicyEgressRules of Ray pods, as to a collector of traces"
    )


class NetworkPolicy(Section):
    """Who may reach the pods. Peers are NetworkPolicyPeers; none = nobody but the release itself."""

    enabled: bool = True
    clients: tuple[Plain, ...] = Field(default=(), description="of the API, such as the ingress controller")
    monitoring: tuple[Plain, ...] = ()
    operator: tuple[Plain, ...] = Field(
        default=({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}}},),
        description="KubeRay, which speaks to the dashboard",
    )
    egress: Egress = Egress()


class Ingress(Section):
    enabled: bool = False
    class_name: str | None = None
    annotations: Annotations = Field(default_factory=dict)
    host: str | None = None
    tls_secret: str | None = None


class HttpRoute(Section):
    enabled: bool = False
    parent_refs: tuple[Plain, ...] = ()
    hostnames: tuple[str, ...] = ()
    timeout_seconds: Count = 300


class PodMonitor(Section):
    enabled: bool = False
    interval_seconds: Count = 15
    labels: Labels = Field(default_factory=dict)


class Rules(Section):
    enabled: bool = False
    labels: Labels = Field(default_factory=dict)


class Dashboards(Section):
    """A ConfigMap that Grafana's sidecar reads."""

    enabled: bool = False
    labels: Labels = Field(default_factory=lambda: {"grafana_dashboard": "1"})
    folder: str = "SkyReels"


class Monitoring(Section):
    pod_monitor: PodMonitor = PodMonitor()
    prometheus_rule: Rules = Rules()
    dashboards: Dashboards = Dashboards()


class Kueue(Section):
    queue_name: str | None = Field(default=None, description="LocalQueue that admits the cluster")


class Test(Section):
    """`helm test`: asks the API whether every stage has a live replica."""

    enabled: bool = True
    url: str | None = Field(default=None, description="instead of the serve Service")
    timeout_seconds: Natural = 300
