"""The Courier deployment: sends webhooks and uploads, and keeps the Api and the Scheduler free of slow receivers.

Any number may run; the store's claims share the work.
"""

from __future__ import annotations

import asyncio

from cluster.config import Config
from cluster.deliveries import Outcome, Parcel
from cluster.records import Dialect
from cluster.store import open_store
from deployments.api.links import Links
from deployments.api.renderers import renderers
from deployments.artifacts import ArtifactStore
from deployments.carrier import Carrier
from deployments.outbound import Outbound
from deployments.telemetry import CourierMetrics, StoreMetrics, logger
from deployments.tracing import TracedStore, Tracer
from deployments.webhooks import openai


class Courier:
    """One Serve deployment around a `Carrier`."""

    async def __init__(self, config: Config) -> None:  # type: ignore[misc] # Serve awaits it
        self._metrics = CourierMetrics()
        self._tracer = Tracer(config.tracing, "Courier")
        self._store = open_store(config.store_url, TracedStore(self._tracer, StoreMetrics(config.served)))
        await self._store.open()
        artifacts = ArtifactStore.of(config)
        outbound = Outbound(config.media.allow_hosts)
        renders = {Dialect.OPENAI: openai, **renderers(Links(config.url))}
        self._carrier = Carrier(
            self._store, artifacts, outbound, renders, config.delivery, logger(), self._count, self._tracer
        )
        self._carrier.start()

    async def wake(self) -> None:
        """Something may be due."""
        self._carrier.wake()

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        if not self._carrier.healthy:
            raise RuntimeError("a delivering loop has ended")

    async def __del__(self) -> None:
        await self._carrier.close()
        await self._store.close()
        await asyncio.to_thread(self._tracer.close)

    def _count(self, parcel: Parcel, outcome: Outcome, seconds: float) -> None:
        kind = {"kind": parcel.kind.value}
        self._metrics.attempts.inc(tags=kind | {"outcome": outcome.state.value})
        self._metrics.seconds.observe(seconds, tags=kind)
