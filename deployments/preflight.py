"""What can be known to fail before anything is started: each refusal names the key and the remedy."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import socket
from pathlib import Path

from cluster.config import Config
from cluster.errors import CheckpointError, ConfigError
from cluster.store import open_store
from deployments.artifacts import ArtifactStore


def check(config: Config) -> None:
    """Refuses what would fail later, and less clearly.

    Raises:
        ConfigError: a port is taken, the artifact store cannot be used, or the job store is of another version.
        CheckpointError: a checkpoint folder is not there.
        Unavailable: the job store cannot be reached.
    """
    ports = (
        ("api.port", config.api.host, config.api.port),
        ("ray.dashboard_port", "127.0.0.1", config.ray.dashboard_port),
        ("ray.metrics_port", "127.0.0.1", config.ray.metrics_port),
    )
    for key, host, port in ports:
        _check_port(key, host, port)
    wanted = [(served.name, path) for served in config.models for path in (served.checkpoint, served.encoders[0])]
    if config.prompt.checkpoint is not None:
        wanted.append(("prompt", config.prompt.checkpoint))
    for name, checkpoint in wanted:
        path = Path(checkpoint)
        if (path.is_absolute() or checkpoint.startswith(".")) and not path.is_dir():
            raise CheckpointError(
                f"The checkpoint {checkpoint} of {name} is not there; write or download it first, or name a hub id."
            )
    if config.prompt.backend == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ConfigError("prompt.backend: vllm is not installed; run `make install-vllm`, or choose transformers.")
    asyncio.run(_check_stores(config))


async def _check_stores(config: Config) -> None:
    await ArtifactStore.of(config).check()
    store = open_store(config.store_url)
    await store.open()  # migrates it, or says why it cannot
    await store.close()


def _check_port(key: str, host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(f"{key}: {host}:{port} is in use; stop its owner or choose another port.") from error
            raise ConfigError(f"{key}: {host}:{port} cannot be bound: {error.strerror}.") from error
