"""`skyreels serve` in a folder of its own: tiny weights, free ports, a process group apart."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

START_S = 300.0
STOP_S = 60.0
POLL_S = 0.2
SKYREELS = (sys.executable, "-c", "from deployments.cli.main import main; main()")
POOLS: Mapping[str, Sequence[Mapping[str, Any]]] = {  # as in the shipped profiles
    "monolith": [{"name": "Monolith", "stages": ["text", "condition", "denoise", "decode"]}],
    "disaggregated": [
        {"name": "TextEncoder", "stages": ["text"]},
        {"name": "Denoiser", "stages": ["denoise"], "ranks": 2},
        {"name": "VaeRoom", "stages": ["condition", "decode"]},
    ],
}


class NotStarted(Exception):
    """The system ended while it started, or took too long; the message holds the end of its output."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class LocalSystem:
    """A whole system on this machine. `overrides` are top-level keys of its configuration; `cores` are the only ones
    that it may use, all if empty.
    """

    folder: Path
    checkpoint: str = "tiny-r2v"
    topology: str = "monolith"
    overrides: dict[str, Any] = field(default_factory=dict)
    cores: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        api, dashboard, metrics = free_ports(3)
        pools = self.overrides.get("pools") or POOLS[self.topology]
        config = {
            "profile": "test",
            "topology": self.topology,
            "state_dir": str(self.folder / "state"),
            "models": [
                {"name": "skyreels-v3-r2v", "checkpoint": str(self.folder.parent / self.checkpoint), "tiny": True},
            ],
            "pools": pools,
            **self._extender(pools),
            "api": {"port": api},
            **self.overrides,
            "ray": {"dashboard_port": dashboard, "metrics_port": metrics, **self.overrides.get("ray", {})},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "config.yaml"
        self.config.write_text(json.dumps(config, indent=2))  # JSON is YAML
        self.log = self.folder / "serve.log"
        self.url = f"http://127.0.0.1:{api}"
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        self.dashboard_url = f"http://127.0.0.1:{dashboard}"
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def _extender(self, pools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The chat model of pools that extend prompts, as in the shipped profiles."""
        if not any("prompt" in pool["stages"] for pool in pools):
            return {}
        checkpoint = str(self.folder.parent / "tiny-extender")
        return {"prompt": {"checkpoint": checkpoint, "tiny": True, "max_tokens": 48}}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Self:
        """Returns once every stage has a slot. NotStarted."""
        with self.log.open("ab") as log:
            pinned = ("taskset", "-c", ",".join(map(str, self.cores))) if self.cores else ()
            command = [*pinned, *SKYREELS, "serve", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_S
        while not self.whole():
            if self.process.poll() is not None:
                raise NotStarted(f"skyreels serve ended while it started: {self.log.read_text()[-3000:]}")
            if time.monotonic() > deadline:
                self.kill()
                raise NotStarted(f"skyreels serve did not come up within {START_S:g} s; see {self.log}.")
            time.sleep(POLL_S)
        return self

    def create_key(self, tenant: str, *, admin: bool = False) -> str:
        """A new API key; also before the start. NotStarted."""
        command = [*SKYREELS, "keys", "create", "--tenant", tenant, "--config", str(self.config)]
        done = subprocess.run([*command, *(["--admin"] if admin else [])], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotStarted(f"no API key could be made: {done.stderr}")
        return done.stdout.strip()

    def whole(self) -> bool:
        """Every stage has a slot, and the edge answers."""
        try:
            return self.client.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> int:
        """A clean stop, as with Ctrl-C; the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)

    def close(self) -> None:
        """Stops what still runs, by force if it must."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        self.client.close()

    def kill(self) -> None:
        """Power off: every process of the system dies at once."""
        members = self.members()
        for member in members:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(members, timeout=30)
        if self.process is not None:
            self.process.wait(30)

    def members(self) -> list[psutil.Process]:
        """Every process of the system."""
        if self.process is None:
            return []
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
