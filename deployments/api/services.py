"""What the routers work with. No Ray here: tests drive the same application over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cluster.config import Config
from cluster.errors import NotFound
from cluster.records import Job, Result
from cluster.registry import Registry
from cluster.store.base import JobStore
from deployments.api.auth import Identity, Keys
from deployments.api.intake import Intake
from deployments.api.reception import Uploads
from deployments.artifacts import ArtifactStore

_BEARER = HTTPBearer(auto_error=False, description="An API key, where the server asks for one.")


async def _nothing() -> Mapping[str, str]:
    """Where there are no nodes."""
    return {}


@dataclass(frozen=True, slots=True)
class Services:
    """One Api replica's collaborators."""

    config: Config
    registry: Registry
    store: JobStore
    artifacts: ArtifactStore
    intake: Intake
    uploads: Uploads
    wake: Callable[[], Awaitable[None]]  # tells the Scheduler that there is work
    keys: Keys | None = None  # None: authentication is off
    misplaced: Callable[[], Awaitable[Mapping[str, str]]] = _nothing  # by pool, why no node can take it


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _caller(
    services: Annotated[Services, Depends(_services)],
    key: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
) -> Identity:
    if services.keys is None:
        return Identity(services.config.tenant, admin=True)
    return await services.keys.identify(None if key is None else f"{key.scheme} {key.credentials}")


def _tenant(caller: Annotated[Identity, Depends(_caller)]) -> str:
    return caller.tenant


Served = Annotated[Services, Depends(_services)]
Caller = Annotated[Identity, Depends(_caller)]
Tenant = Annotated[str, Depends(_tenant)]
# Bounded because databases count no further than 64 bits.
Index = Annotated[int, Query(ge=0, le=9999, description="Which of the video's results.")]


def result_of(job: Job, index: int) -> Result:
    """One result of a job, published or not. NotFound."""
    if index >= len(job.results):
        raise NotFound(f"Video {job.id} has {len(job.results)} results, counted from 0; it has no result {index}.")
    return job.results[index]
