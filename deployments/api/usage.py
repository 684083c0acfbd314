"""What a tenant has used and is charged."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from cluster.errors import InvalidRequest
from deployments.api.services import Caller, Served
from deployments.api.videos import ERRORS

router = APIRouter(tags=["cluster"], responses=ERRORS)


class StageUse(BaseModel):
    """Device-seconds of one stage."""

    stage: str
    useful_s: float
    wasted_s: float
    calls: int


class UsageReport(BaseModel):
    """Sums over whole hours. Device-seconds are of attempts that ended then, charges of results published then."""

    object: Literal["usage"] = "usage"
    tenant: str
    since: datetime
    until: datetime
    device_s: float
    stages: list[StageUse]
    videos: int
    video_s: int
    charged_usd: str


@router.get("/v1/usage")
async def usage(
    services: Served,
    caller: Caller,
    tenant: Annotated[str | None, Query(description="Another tenant; needs an admin key.")] = None,
    since: Annotated[datetime | None, Query(description="From the hour of this moment; a day ago if left out.")] = None,
    until: Annotated[datetime | None, Query(description="To the end of this moment's hour; now if left out.")] = None,
) -> UsageReport:
    """The caller's own use; an admin may ask for any tenant's."""
    if tenant is not None and tenant != caller.tenant:
        caller.operator()
    span = _aware("since", since), _aware("until", until)
    found = await services.store.usage(tenant or caller.tenant, since=span[0], until=span[1])
    return UsageReport(
        tenant=found.tenant_id,
        since=found.since,
        until=found.until,
        device_s=found.device_s,
        stages=[
            StageUse(stage=item.stage, useful_s=item.useful_s, wasted_s=item.wasted_s, calls=item.done)
            for item in found.stages
        ],
        videos=found.results,
        video_s=found.video_s,
        charged_usd=f"{found.charged_usd:f}",
    )


def _aware(name: str, moment: datetime | None) -> datetime | None:
    """A moment without a zone is UTC; the ends of the calendar have no neighbours to compute with."""
    if moment is None:
        return None
    if not 2000 <= moment.year < 9999:
        raise InvalidRequest(f"{name} must lie between the years 2000 and 9998.", param=name)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
