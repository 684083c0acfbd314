"""Every feature of the chart switched on, or to its other form, by itself: the values that do it."""

from __future__ import annotations

from typing import Any

PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
DIGEST = "sha256:" + "a" * 64
# Over the profile disagg-h200-l40s. Weights in images need a Kubernetes of 1.35 and are not among them.
SWITCHES: dict[str, dict[str, Any]] = {
    "names": {"fullnameOverride": "video"},
    "name": {"nameOverride": "video"},
    "image by digest": {"image": {"repository": "registry.example/skyreels", "digest": DIGEST}},
    "pull secrets": {"imagePullSecrets": [{"name": "registry"}]},
    "environment": {"env": [{"name": "NCCL_DEBUG", "value": "WARN"}]},
    "token from a secret": {"ray": {"authToken": {"existingSecret": "ray-token"}}},
    "no token": {"ray": {"authToken": {"enabled": False}}},
    "no fault tolerance": {"ray": {"gcsFaultTolerance": {"enabled": False}}},
    "rocksdb": {"ray": {"gcsFaultTolerance": {"backend": "rocksdb", "redisAddress": None}}},
    "HAProxy": {"ray": {"haProxy": True}},
    "no autoscaler": {"autoscaler": {"enabled": False}},
    "upgrade in steps": {"upgrade": {"strategy": "Incremental", "incremental": {"gatewayClassName": "istio"}}},
    "no upgrade": {"upgrade": {"strategy": "None"}},
    "head placement": {
        "head": {
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
            "priorityClassName": "high",
            "pdb": {"enabled": False},
        }
    },
    "group placement": {
        "accelerators": {"h200": {"runtimeClassName": "nvidia"}},
        "pools": {
            "dit": {
                "priority": 10,
                "idleTimeoutSeconds": 60,
                "labels": {"rack": "a"},
                "nodeSelector": {"zone": "a"},
                "tolerations": [{"key": "dit", "operator": "Exists"}],
                "priorityClassName": "high",
                "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                "pdb": {"enabled": True},
            }
        },
    },
    "scale to zero": {"pools": {"dit": {"min": 0}}},
    "one more group": {"pools": {"aux": {"order": 99, "cpus": 2, "memory": "4Gi"}}},
    "weights: claim of others": {"models": {"pvc": {"existingClaim": "weights"}, "fetch": {"enabled": False}}},
    "weights: storage class": {"models": {"pvc": {"storageClassName": "nfs"}, "fetch": {"tokenSecret": "hub"}}},
    "weights: on nodes": {
        "models": {
            "source": "hostCache",
            "hostCache": {"nodeSelector": {"disk": "nvme"}, "tolerations": [{"operator": "Exists"}]},
        }
    },
    "weights: on nodes, filled by others": {"models": {"source": "hostCache", "hostCache": {"fill": False}}},
    "accounts": {
        "serviceAccounts": {"worker": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}}
    },
    "operator's role": {"operatorRole": {"create": True, "subjects": [{"kind": "Group", "name": "video"}]}},
    "workload identity": {"objectStore": {"existingSecret": None}, "jobStore": {"existingSecret": None}},
    "another user": {"security": {"runAsUser": 1234, "fsGroup": 1234, "readOnlyRootFilesystem": False}},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "network peers": {
        "networkPolicy": {
            "clients": [PEER],
            "monitoring": [PEER],
            "egress": {"stores": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "internetExcept": ["10.0.0.0/8"]},
        }
    },
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "video.example",
            "tlsSecret": "tls",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600"},
        }
    },
    "ingress without TLS": {"ingress": {"enabled": True, "host": "video.example"}},
    "route": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "gw"}], "hostnames": ["video.example"]}},
    "monitoring": {
        "monitoring": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True},
        }
    },
    "Kueue": {"kueue": {"queueName": "video"}},
    "no test": {"test": {"enabled": False}},
    "test of another address": {"test": {"url": "https://video.example"}},
    "extra objects": {
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}},
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text\n",
        ]
    },
    "site": {
        "site": {
            "store": {"url": "postgresql+asyncpg://db.example/video?sslmode=verify-full"},
            "artifacts": {"root": "s3://videos", "region": "eu-central-1"},
            "limits": {},
            "tenant": "studio",
        }
    },
}
