"""How a replica learns that Serve is stopping it while calls are in flight.

Serve tells a replica's code only at the very end: it waits for the calls for `graceful_shutdown_timeout_s`, then runs
the destructor or kills. Two public signs come earlier. A replica that is being stopped gets no more health checks; and
`serve.status()` counts it as STOPPING. Silence alone is no proof, because the controller may be restarting; both
together are. A health check that comes after all ends the drain.

Noticing takes a few health-check periods. Who is killed before that loses what periodic snapshots do not hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

SILENT_PERIODS = 2.5


class DrainWatch:
    """Calls `changed` with the time of the kill to come (monotonic clock), or with None when it will not come."""

    def __init__(
        self,
        stopping: Callable[[], Awaitable[bool]],
        changed: Callable[[float | None], Awaitable[None]],
        *,
        period_s: float,
        grace_s: float,
    ) -> None:
        """Args:
        stopping: asks Serve whether it is stopping a replica of this deployment.
        changed: told of each change.
        period_s: of health checks.
        grace_s: from the stop to the kill.
        """
        self._stopping = stopping
        self._changed = changed
        self._period_s = period_s
        self._grace_s = grace_s
        self._seen_s: float | None = None
        self._draining = False

    async def seen(self) -> None:
        """A health check came."""
        self._seen_s = time.monotonic()
        if self._draining:
            await self._changed(None)
            self._draining = False

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            await asyncio.sleep(self._period_s / 4)
            if self._seen_s is None or self._draining:
                continue
            seen_s = self._seen_s
            silent = time.monotonic() - seen_s > SILENT_PERIODS * self._period_s
            if silent and await self._stopping() and self._seen_s == seen_s:
                self._draining = True
                await self._changed(seen_s + self._grace_s)


async def stopping_here() -> bool:
    """Whether Serve is stopping a replica of the deployment that this code runs in."""
    context = serve.get_replica_context()
    return await asyncio.to_thread(_stopping, context.app_name, context.deployment)


def _stopping(application: str, deployment: str) -> bool:
    try:
        report = serve.status().applications.get(application)
    except (RayError, RayServeException):
        return False  # nobody can stop replicas now
    if report is None or deployment not in report.deployments:
        return True
    return bool(report.deployments[deployment].replica_states.get("STOPPING"))
