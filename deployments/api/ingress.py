"""The Api deployment: opens the stores, builds the application, wakes the Scheduler and the Courier."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Protocol

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cluster.config import Config
from cluster.store import open_store
from deployments.api.application import create_app
from deployments.api.auth import Keys
from deployments.api.intake import Intake
from deployments.api.reception import Uploads
from deployments.api.services import Services
from deployments.artifacts import ArtifactStore
from deployments.fetch import Fetcher
from deployments.nodes import find_misplaced
from deployments.telemetry import StoreMetrics, logger
from deployments.tracing import TracedStore, Tracer

WAKE_TIMEOUT_S = 5.0


class Waker(Protocol):
    """The part of the Scheduler's and the Courier's handles that the Api uses."""

    @property
    def wake(self) -> Any: ...


@serve.ingress()
class Api:
    """Validates, stores, answers. No tensor and no job state ever lives here."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, config: Config, scheduler: Waker, courier: Waker
    ) -> None:
        self._sleepers = {"scheduler": scheduler, "courier": courier}
        self._log = logger()
        self._work = asyncio.Event()
        self._waker = asyncio.create_task(self._wake_others())
        self._tracer = Tracer(config.tracing, "Api")
        self._store = open_store(
            config.store_url, TracedStore(self._tracer, StoreMetrics(config.served, config.stages))
        )
        await self._store.open()
        artifacts = ArtifactStore.of(config)
        self._fetcher = Fetcher(config.media)
        self._services = Services(
            config=config,
            registry=config.registry,
            store=self._store,
            artifacts=artifacts,
            intake=Intake(self._store, artifacts, self._fetcher, config, self._tracer),
            uploads=Uploads(self._store, artifacts, config),
            wake=self._wake,
            keys=Keys(self._store) if config.auth == "keys" else None,
            misplaced=partial(find_misplaced, config.pools),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._services)

    async def __del__(self) -> None:
        self._waker.cancel()
        await asyncio.gather(self._waker, return_exceptions=True)
        await self._store.close()
        await asyncio.to_thread(self._tracer.close)

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        if self._waker.done():
            raise RuntimeError("the waker has ended")

    async def _wake(self) -> None:
        self._work.set()

    async def _wake_others(self) -> None:
        """Apart from the requests, so that a dead process delays no answer; they poll, so a lost wake costs little."""
        while True:
            await self._work.wait()
            self._work.clear()
            for name, sleeper in self._sleepers.items():
                try:
                    async with asyncio.timeout(WAKE_TIMEOUT_S):
                        await sleeper.wake.remote()
                except (RayError, RayServeException, TimeoutError) as error:
                    self._log.warning("could not wake the %s: %s", name, type(error).__name__)
