"""Ours: what became of webhooks and uploads, sending them again, and the secret that signs webhooks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cluster.deliveries import Parcel, ParcelState
from deployments.api.auth import Identity
from deployments.api.schemas import ErrorBody
from deployments.api.services import Caller, Served, Services, Tenant

ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in (400, 401, 404, 409, 503)}

router = APIRouter(prefix="/v1", tags=["deliveries"], responses=ERRORS)


class DeliveryReport(BaseModel):
    """One webhook or upload."""

    id: str = Field(description="Of a webhook: its webhook-id header.")
    object: Literal["delivery"] = "delivery"
    video_id: str
    kind: Literal["webhook", "upload"]
    state: Literal["pending", "sending", "delivered", "dead"]
    url: str = Field(description="Without its query, which may hold a signature.")
    event: int = Field(description="Number of the event that it tells of.")
    result: int | None = Field(description="Index of the result that it tells of; null = the whole job.")
    attempts: int
    next_at: int | None = Field(description="When it is sent (again), while it is pending.")
    last_status: int | None
    last_error: str | None
    created_at: int
    settled_at: int | None


class DeliveryList(BaseModel):
    """A page, the newest first."""

    object: Literal["list"] = "list"
    data: list[DeliveryReport]
    has_more: bool
    first_id: str | None
    last_id: str | None


class WebhookSecret(BaseModel):
    """What webhooks are signed with (Standard Webhooks)."""

    object: Literal["webhook.secret"] = "webhook.secret"
    secret: str
    previous: list[str] = Field(description="Rotated secrets that sign beside it for a while.")


def report(parcel: Parcel) -> DeliveryReport:
    """A parcel as its owner sees it."""
    pending = parcel.state is ParcelState.PENDING
    return DeliveryReport(
        id=parcel.id,
        video_id=parcel.job_id,
        kind=parcel.kind.value,
        state=parcel.state.value,
        url=parcel.url.partition("?")[0],
        event=parcel.seq,
        result=parcel.result,
        attempts=parcel.attempts,
        next_at=int(parcel.next_at.timestamp()) if pending else None,
        last_status=parcel.last_status,
        last_error=parcel.last_error,
        created_at=int(parcel.created_at.timestamp()),
        settled_at=int(parcel.settled_at.timestamp()) if parcel.settled_at else None,
    )


def _scope(services: Services, caller: Identity) -> str | None:
    """Whose deliveries a caller may see; None = everybody's. Without authentication nobody is an operator."""
    return None if caller.admin and services.keys is not None else caller.tenant


@router.get("/deliveries")
async def list_deliveries(
    services: Served,
    caller: Caller,
    state: Annotated[list[ParcelState] | None, Query()] = None,
    video_id: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> DeliveryList:
    """Webhooks and uploads of the last days, of all tenants for an admin key; `state` may be repeated, `after` is the
    last id of the page before.
    """
    page = await services.store.parcels(
        _scope(services, caller), states=state or (), job_id=video_id, after=after, limit=limit
    )
    data = [report(parcel) for parcel in page.parcels]
    return DeliveryList(
        data=data,
        has_more=page.has_more,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.post("/deliveries/{delivery_id}/resend")
async def resend(delivery_id: str, services: Served, caller: Caller) -> DeliveryReport:
    """Sends a dead or delivered one again, under the same id."""
    parcel = await services.store.resend_parcel(delivery_id, _scope(services, caller))
    await services.wake()
    return report(parcel)


@router.get("/webhooks/secret")
async def secret(services: Served, tenant: Tenant) -> WebhookSecret:
    """The secret that receivers verify webhooks with."""
    current, *previous = await services.store.webhook_secrets(tenant)
    return WebhookSecret(secret=current, previous=previous)


@router.post("/webhooks/secret/rotate")
async def rotate(services: Served, tenant: Tenant) -> WebhookSecret:
    """A new secret. Webhooks are signed with both until the one before ends."""
    overlap_s = services.config.delivery.secret_overlap_s
    current, *previous = await services.store.rotate_webhook_secret(tenant, overlap_s=overlap_s)
    return WebhookSecret(secret=current, previous=previous)
