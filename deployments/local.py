"""A Ray cluster on this machine and the system on it, deployed through Serve's REST config.

The cluster belongs to the calling process: it ends when that process ends, however it ends. Jobs and files stay in the
state directory, and the next start goes on with them.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cluster.config import SERVICES, Config
from cluster.errors import ConfigError, Unavailable
from cluster.placement import misplaced
from cluster.serve_config import APPLICATION, serve_config

START_TIMEOUT_S = 600.0
POLL_S = 0.25
# Ray reads these where its processes start. Serve's controller looks around ten times a second by default, which is
# a sixth of what the idle cluster costs.
_RAY_SETTINGS = {"RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5"}
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Local:
    """A running system."""

    url: str
    metrics_url: str
    dashboard_url: str
    logs: Path
    token: str


def _token(state: Path) -> tuple[Path, str]:
    """Ray's shared secret, made once per state directory; without it any local process could submit code."""
    path = state / "ray-token"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path, path.read_text(encoding="ascii").strip()


@contextmanager
def running(config: Config, report: Report) -> Iterator[Local]:
    """Starts everything, yields while it runs, stops everything.

    Raises:
        ConfigError: the deployment was refused, with Serve's message; or this machine has not the labels it asks for.
        Unavailable: it did not come up in time.
    """
    state = config.state_path
    state.mkdir(parents=True, exist_ok=True)
    path, token = _token(state)
    os.environ.update(_RAY_SETTINGS, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(path))
    import ray  # noqa: PLC0415 (Ray reads how it authenticates when it is imported)
    from ray import serve as ray_serve  # noqa: PLC0415

    from deployments.nodes import node_labels  # noqa: PLC0415 (it imports Ray)

    report("starting Ray")
    context = ray.init(
        num_cpus=config.ray.num_cpus,
        object_store_memory=config.ray.object_store_nbytes,
        labels=dict(config.ray.labels),
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=config.ray.dashboard_port,
        _metrics_export_port=config.ray.metrics_port,
        _node_ip_address="127.0.0.1",
        namespace="serve",
        log_to_driver=False,
        configure_logging=False,
    )
    try:
        local = Local(
            url=f"http://{config.api.host}:{config.api.port}",
            metrics_url=f"http://127.0.0.1:{config.ray.metrics_port}/metrics",
            dashboard_url=f"http://127.0.0.1:{config.ray.dashboard_port}",
            logs=Path(context.address_info["session_dir"]) / "logs",
            token=token,
        )
        if reasons := misplaced(config.pools, node_labels()):
            raise ConfigError(f"pools.labels, ray.labels: {'; '.join(reasons.values())}.")
        deploy(local, config)
        wait_until_ready(local, config, report)
        yield local
    finally:
        report("stopping")
        ray_serve.shutdown()
        ray.shutdown()


def _serve_api(local: Local) -> httpx.Client:
    return httpx.Client(
        base_url=f"{local.dashboard_url}/api/serve",
        headers={"Authorization": f"Bearer {local.token}"},
        timeout=60,
        trust_env=False,
    )


def deploy(local: Local, config: Config) -> None:
    """Puts the generated config; what did not change keeps running."""
    with _serve_api(local) as api:
        response = api.put("/applications/", json=serve_config(config))
    if not response.is_success:
        raise ConfigError(f"Serve refused the config: {response.text}")


def wait_until_ready(local: Local, config: Config, report: Report) -> None:
    """Returns once every deployment is healthy and every stage has a slot."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with _serve_api(local) as api, httpx.Client(base_url=local.url, timeout=10, trust_env=False) as edge:
        while time.monotonic() < deadline:
            application = api.get("/applications/").json()["applications"].get(APPLICATION)
            if application is not None:
                if application["status"] in {"DEPLOY_FAILED", "UNHEALTHY"}:
                    reasons = _reasons(application)
                    raise ConfigError(f"The application did not start; {local.logs} has the details. {reasons}")
                deployments = application["deployments"]
                healthy = [name for name, entry in deployments.items() if entry["status"] == "HEALTHY"]
                report(f"starting stages {len(healthy)}/{len(config.pools) + len(SERVICES)}: {', '.join(healthy)}")
                if application["status"] == "RUNNING" and _ready(edge):
                    return
            time.sleep(POLL_S)
    raise Unavailable(f"The system did not come up within {START_TIMEOUT_S:.0f} s; see {local.logs}.", retry_after_s=60)


def _ready(edge: httpx.Client) -> bool:
    try:
        return edge.get("/readyz").is_success
    except httpx.TransportError:
        return False


def _reasons(application: dict[str, Any]) -> str:
    """The last line of each message: the error itself, below the stack that the log keeps."""
    messages = {"application": application["message"]}
    messages |= {name: entry["message"] for name, entry in application["deployments"].items()}
    return " ".join(f"{name}: {text.strip().splitlines()[-1]}" for name, text in messages.items() if text.strip())
