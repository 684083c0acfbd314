"""What a changed Serve config does to the replicas that run.

Serve gives all replicas of an application a new version when its import path, arguments, runtime environment or
autoscaling policy change, and those of one deployment when its placement does; the rest it applies while they run
(ray 2.60: `serve/_private/deploy_utils.py` get_app_code_version, `serve/_private/version.py` requires_actor_restart).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CODE = ("import_path", "runtime_env", "args", "autoscaling_policy")
_CODE_OF_DEPLOYMENT = ("request_router_config", "deployment_actors")
_PLACEMENT = (
    "ray_actor_options",
    "placement_group_bundles",
    "placement_group_strategy",
    "placement_group_bundle_label_selector",
    "placement_group_fallback_strategy",
    "max_replicas_per_node",
    "gang_scheduling_config",
)
_FIXED = ("proxy_location", "http_options", "grpc_options")  # Serve reads them when it starts, never again
Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServeChange:
    """Names of deployments by what happens to them, and settings that only a new cluster takes."""

    restarted: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.restarted, self.updated, self.added, self.removed, self.ignored))


def serve_changes(old: Config, new: Config) -> ServeChange:
    """What happens when `new` is applied to a cluster that runs `old`."""
    before, after = _applications(old), _applications(new)
    found: dict[str, list[str]] = {name: [] for name in ("restarted", "updated", "added", "removed")}
    for name in sorted({*before, *after}):
        old_app, new_app = before.get(name, {}), after.get(name, {})
        whole = bool(old_app) and bool(new_app) and _code(old_app) != _code(new_app)
        olds, news = _deployments(old_app), _deployments(new_app)
        for deployment in sorted({*olds, *news}):
            if deployment not in news:
                found["removed"].append(deployment)
            elif deployment not in olds:
                found["added"].append(deployment)
            elif whole or _differs(olds[deployment], news[deployment], _PLACEMENT):
                found["restarted"].append(deployment)
            elif olds[deployment] != news[deployment]:
                found["updated"].append(deployment)
    ignored = tuple(key for key in _FIXED if old.get(key) != new.get(key))
    return ServeChange(**{name: tuple(names) for name, names in found.items()}, ignored=ignored)


def _applications(config: Config) -> dict[str, Config]:
    return {one["name"]: one for one in config.get("applications", ())}


def _deployments(application: Config) -> dict[str, Config]:
    return {one["name"]: one for one in application.get("deployments", ())}


def _code(application: Config) -> object:
    deployments = application.get("deployments", ())
    parts: list[object] = [application.get(key) for key in _CODE]
    parts += [[one.get(key) for one in deployments if one.get(key)] for key in _CODE_OF_DEPLOYMENT]
    policies = [one.get("autoscaling_config") for one in deployments]
    return [*parts, [policy.get("policy") for policy in policies if isinstance(policy, dict)]]


def _differs(old: Config, new: Config, keys: tuple[str, ...]) -> bool:
    return any(old.get(key) != new.get(key) for key in keys)
