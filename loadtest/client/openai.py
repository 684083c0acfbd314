"""OpenAI's Videos API as this project serves it, with what it has beyond: event streams, Server-Timing, usage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from cluster.registry import KNOWN
from loadtest.client.base import ASPECT, Device, Dialect, Look, Receipt, Sight, State, media
from loadtest.client.spans import Log
from loadtest.inputs import data_uri
from loadtest.records import Planned

STATES: Mapping[str, State] = {
    "queued": State.WAITING,
    "in_progress": State.WORKING,
    "completed": State.COMPLETED,
    "failed": State.FAILED,
}
PAUSE_S = 0.3  # before a broken stream is taken up again


class OpenAi(Dialect):
    """Looks by polling; Server-Timing says where the time of an ended job went."""

    name = "openai"

    async def create(self, request: Planned) -> Receipt:
        receipt, answer = await self.submit("/v1/videos", request, json=body(request))
        return receipt if answer is None else Receipt(answer["id"], receipt.status)

    async def look(self, job_id: str, tenant: str) -> Look:
        response = await self.ask("GET", f"/v1/videos/{job_id}", tenant)
        video = response.raise_for_status().json()
        spent = server_timing(response.headers.get("server-timing", ""))
        error = video.get("error")
        return Look(
            state=STATES[video["status"]],
            error=None if error is None else f"{error['code']}: {error['message']}",
            queue_s=spent.pop("queue", None),
            server_s=spent.pop("total", None),
            stage_s=spent,
        )

    async def cancel(self, job_id: str, tenant: str) -> None:
        (await self.ask("POST", f"/v1/videos/{job_id}/cancel", tenant)).raise_for_status()

    async def fetch(self, job_id: str, tenant: str, results: int) -> int:
        return sum([await self.download(f"/v1/videos/{job_id}/content?index={i}", tenant) for i in range(results)])

    async def device(self, tenants: tuple[str, ...], since: str) -> Device | None:
        """Sums over tenants; those without a key of their own are one tenant of the server."""
        asked = [tenant for tenant in tenants if tenant in self._keys] or [""]
        reports = [await self.ask("GET", "/v1/usage", tenant, params={"since": since}) for tenant in asked]
        if any(report.status_code == httpx.codes.NOT_FOUND for report in reports):
            return None
        stages = [stage for report in reports for stage in report.raise_for_status().json()["stages"]]
        return Device(sum(stage["useful_s"] for stage in stages), sum(stage["wasted_s"] for stage in stages))


class OpenAiEvents(OpenAi):
    """Listens to a job's event stream: ends, first segments and stages' attempts are seen when they happen."""

    name = "openai-events"

    async def follow(self, job_id: str, tenant: str, sight: Sight) -> None:
        loop = asyncio.get_running_loop()
        log, seen = Log(), 0
        while not sight.state.over:
            with suppress(httpx.HTTPError, ValueError, KeyError):
                async for number, event, data in self._events(job_id, tenant, seen):
                    seen = number
                    log.add(event, data)
                    if log.previewed and sight.preview_at is None:
                        sight.preview_at = loop.time()
                    sight.see(_look(log), loop.time())
            if not sight.state.over:
                await asyncio.sleep(PAUSE_S)
        sight.spans = tuple(log.spans)

    async def _events(self, job_id: str, tenant: str, after: int) -> AsyncIterator[tuple[int, str, dict[str, Any]]]:
        """Events behind a number. httpx.HTTPError; ValueError when it is no event stream."""
        path = f"/v1/videos/{job_id}/events"
        async with self.http.stream(
            "GET", path, params={"after": after}, headers=self.headers(tenant), timeout=httpx.Timeout(20, read=60)
        ) as response:
            response.raise_for_status()
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if line and not line.startswith(":"):
                    fields[name] = value
                elif "event" in fields and "id" in fields:
                    yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                    fields = {}


def _look(log: Log) -> Look:
    stage_s: dict[str, float] = {}
    for span in log.spans:
        if span.counted:
            stage_s[span.stage] = stage_s.get(span.stage, 0.0) + span.ended_s - span.began_s
    over = log.ended_s is not None
    return Look(
        state=STATES[log.status],
        error=log.error,
        queue_s=log.running_s,
        server_s=log.ended_s,
        stage_s=stage_s if over else {},
    )


def body(request: Planned) -> dict[str, Any]:
    """The JSON of a create. An avatar's length is its voice's; only references choose an aspect."""
    limits = KNOWN[request.model].limits
    files = media(request)
    asked: dict[str, Any] = {
        "model": request.model,
        "prompt": request.prompt,
        "resolution": request.resolution,
        "seed": request.seed,
        "n": request.results,
        "priority": request.priority,
    }
    if files.images:
        asked["images"] = [data_uri("image/png", image) for image in files.images]
    if limits.aspect_ratios:
        asked["aspect_ratio"] = ASPECT
    if files.voice is not None:
        asked["audio"] = data_uri("audio/wav", files.voice)
    else:
        asked["seconds"] = int(request.seconds)
    if files.video is not None:
        asked["video"] = data_uri("video/mp4", files.video)
    return asked


def server_timing(header: str) -> dict[str, float]:
    """Seconds by name of a `Server-Timing` header (W3C), whose durations are milliseconds."""
    found = {}
    for entry in filter(None, (part.strip() for part in header.split(","))):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "dur":
                found[name] = float(value) / 1000
    return found
