"""One job from its create to its bytes, as a patient caller would drive it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx

from loadtest.chaos.client import Client, Offer
from loadtest.chaos.evidence import COMPLETED, ENDED, JobRecord
from loadtest.chaos.log import parse
from loadtest.chaos.media import inspect
from loadtest.chaos.receiver import Receiver
from loadtest.chaos.scenario import Fate, JobPlan
from loadtest.chaos.usage import SIZE
from loadtest.inputs import picture

POLL_S = 2.0
JOB_S = 900.0
REACHES = (("GET", ""), ("GET", "/content"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", ""))


IMAGES = (picture(200, 30, 30), picture(30, 30, 200))


class Driver:
    """Drives jobs; their records hold what it saw."""

    def __init__(self, client: Client, offer: Offer, receiver: Receiver | None) -> None:
        self._client = client
        self._offer = offer
        self._receiver = receiver
        self.lost_answers = 0

    async def run(self, plan: JobPlan, record: JobRecord) -> None:
        """A job to its end and its bytes. GaveUp."""
        if await self._create(record, plan):
            began = time.monotonic()
            if plan.trespass and self._client.tenants > 1:
                await self._trespass(record)
            await self.follow(record, began + plan.fate_after_s)
            record.ended_after_s = time.monotonic() - began

    def body(self, plan: JobPlan) -> dict[str, Any]:
        """The create's JSON."""
        hook = {} if self._receiver is None else {"webhook_url": self._receiver.url(plan.tenant, plan.index)}
        return {
            **hook,
            "prompt": plan.prompt,
            "seed": plan.seed,
            "seconds": plan.seconds,
            "aspect_ratio": "16:9",
            "resolution": SIZE,
            "images": list(IMAGES),
            "n": plan.n,
            "include_cost": self._offer.usage,
        }

    async def _create(self, record: JobRecord, plan: JobPlan) -> bool:
        content: dict[str, Any] = {"json": self.body(plan)}
        if self._offer.once:
            content["headers"] = {"Idempotency-Key": plan.once}
            if plan.hang_up_s is not None:
                await self._hang_up(plan, content)
        response, unanswered = await self._client.ask("POST", "/v1/videos", plan.tenant, **content)
        if not self._offer.once:
            self.lost_answers += unanswered
        if response.is_error:
            record.refusal = f"{response.status_code} {response.text[:300]}"
            return False
        record.id = response.json()["id"]
        record.see(response.json())
        if self._offer.once and plan.repeat:
            again, _ = await self._client.ask("POST", "/v1/videos", plan.tenant, **content)
            if again.is_error or again.json()["id"] != record.id:
                record.oddities.append(f"the same Idempotency-Key gave {again.status_code} {again.text[:200]}")
        return True

    async def _hang_up(self, plan: JobPlan, content: dict[str, Any]) -> None:
        """A create whose caller goes away before the answer."""
        try:
            async with asyncio.timeout(plan.hang_up_s):
                await self._client.once("POST", "/v1/videos", plan.tenant, **content)
        except TimeoutError:
            return

    async def _trespass(self, record: JobRecord) -> None:
        """Another tenant reaches for the job in every way there is; for it there must be no such job."""
        stranger = (record.tenant + 1) % self._client.tenants
        for method, path in REACHES:
            response, _ = await self._client.ask(method, f"/v1/videos/{record.id}{path}", stranger)
            if response.status_code != httpx.codes.NOT_FOUND:
                record.oddities.append(f"{method} {path or '/'} of another tenant gave {response.status_code}")

    async def follow(self, record: JobRecord, fate_at: float) -> None:
        """Polls until the job has ended or its fate has struck; then looks at what is left of it. GaveUp."""
        fate = Fate.FINISH if record.plan is None else record.plan.fate
        deadline = time.monotonic() + JOB_S
        while record.status not in ENDED:
            if fate is not Fate.FINISH and time.monotonic() >= fate_at:
                await self._strike(record, fate)
                break
            if time.monotonic() > deadline:
                record.oddities.append(f"not ended within {JOB_S:g} s")
                return
            pause = POLL_S if fate is Fate.FINISH else min(POLL_S, max(fate_at - time.monotonic(), 0.0))
            await asyncio.sleep(pause)
            response, _ = await self._client.ask("GET", f"/v1/videos/{record.id}", record.tenant)
            if response.is_error:
                record.oddities.append(f"GET gave {response.status_code}: {response.text[:200]}")
                return
            record.see(response.json())
        if record.deleted:
            return
        if record.status == COMPLETED:
            await self._download(record)
        if self._offer.events:
            response, _ = await self._client.ask("GET", f"/v1/videos/{record.id}/events", record.tenant)
            if response.is_error:
                record.oddities.append(f"GET events gave {response.status_code}: {response.text[:200]}")
                return
            record.log = parse(response.text)

    async def _strike(self, record: JobRecord, fate: Fate) -> None:
        path = f"/v1/videos/{record.id}"
        if fate is Fate.CANCEL:
            response, _ = await self._client.ask("POST", f"{path}/cancel", record.tenant)
            record.stopped = True
            if response.is_error:
                record.oddities.append(f"cancel gave {response.status_code}: {response.text[:200]}")
                return
            record.see(response.json())
            if record.status not in ENDED:
                record.oddities.append(f"{record.status} after a cancel")
            return
        response, unanswered = await self._client.ask("DELETE", path, record.tenant)
        record.deleted = True
        repeated = response.status_code == httpx.codes.NOT_FOUND and unanswered > 0
        if response.is_error and not repeated:
            record.oddities.append(f"delete gave {response.status_code}: {response.text[:200]}")
        gone, _ = await self._client.ask("GET", path, record.tenant)
        if gone.status_code != httpx.codes.NOT_FOUND:
            record.oddities.append(f"GET after delete gave {gone.status_code}")

    async def _download(self, record: JobRecord) -> None:
        for result in record.last["results"]:
            if result["url"] is None:
                record.oddities.append(f"completed without result {result['index']}")
                continue
            content, _ = await self._client.ask("GET", result["url"], record.tenant)
            if content.is_error:
                record.oddities.append(f"{result['url']} gave {content.status_code}: {content.text[:200]}")
                continue
            film = await asyncio.to_thread(inspect, content.content)
            record.films.append(replace(film, seed=result["seed"]))
