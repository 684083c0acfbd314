"""Who asks, what they may, and what they have used: the records of tenancy."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
MICRO = Decimal(10) ** 6  # millionths per dollar


class TenantLimits(BaseModel):
    """What one tenant may have at once and in time; None = unlimited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queued: Count | None = Field(default=None, description="jobs that wait for their first worker")
    running: Count | None = Field(default=None, description="jobs in progress; a job over it waits")
    requests_per_minute: Count | None = Field(default=None, description="jobs accepted in any 60 seconds")
    device_seconds_per_day: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="of ended stage attempts in the last 24 hours, wasted ones included"
    )


class Limits(BaseModel):
    """The limits of every tenant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: TenantLimits = TenantLimits()
    tenants: dict[str, TenantLimits] = Field(
        default_factory=dict, description="by tenant; a limit that is not named here is the default's"
    )

    def of(self, tenant_id: str) -> TenantLimits:
        """The limits of a tenant."""
        own = self.tenants.get(tenant_id)
        return self.default if own is None else self.default.model_copy(update=own.model_dump(exclude_unset=True))


UNLIMITED = TenantLimits()


@dataclass(frozen=True, slots=True)
class Once:
    """An idempotency key of a tenant and what the request was that came with it."""

    key: str
    fingerprint: str  # sha256 of the dialect and the request as the caller wrote it


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: its secret is not."""

    id: str
    tenant_id: str
    name: str
    sha256: str
    admin: bool
    created_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None  # coarse


@dataclass(frozen=True, slots=True)
class StageUsage:
    """Device-seconds of a tenant's ended attempts of one stage."""

    stage: str
    useful_s: float
    wasted_s: float
    done: int  # attempts that completed


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tenant used and was charged in a span of whole hours."""

    tenant_id: str
    since: datetime
    until: datetime
    stages: tuple[StageUsage, ...]
    results: int
    video_s: int
    charged_usd: Decimal

    @property
    def device_s(self) -> float:
        """Useful and wasted together."""
        return sum(stage.useful_s + stage.wasted_s for stage in self.stages)


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """What a waiting tenant has had lately and has now; fairness is decided on it."""

    used_s: float = 0.0  # device-seconds of attempts that ended lately
    held: Mapping[str, int] = field(default_factory=dict)  # calls dispatched or claimed, by stage
    served_at: Mapping[str, datetime] = field(default_factory=dict)  # by stage: when its last attempt ended
    running: int = 0  # jobs in progress; only counted, up to the limit, for a tenant that has one


def new_secret() -> str:
    """A fresh key: 256 random bits."""
    return "sk-" + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is kept of a key. A plain hash is enough because the secret is random and long."""
    return hashlib.sha256(secret.encode()).hexdigest()
