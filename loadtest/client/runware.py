"""Runware's API: an array of tasks in, what became of each out. The caller names its task."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from cluster.registry import KNOWN
from loadtest.client.base import Dialect, Look, Receipt, State, media
from loadtest.inputs import data_uri
from loadtest.mixes import Entry
from loadtest.records import Planned

PATH = "/runware/v1"
TAG = "@subject"


class Runware(Dialect):
    """Looks by polling; an ended task does not say how long it waited. There is no cancel: what is given up goes on."""

    name = "runware"

    def unable(self, entry: Entry) -> str | None:
        known = KNOWN[entry.model]
        if known.runware is None:
            return f"{entry.model} has no Runware id"
        if known.limits.max_voices or known.limits.min_videos:
            return "Runware takes voices and videos by URL alone, and the load generator serves none"
        return None

    async def create(self, request: Planned) -> Receipt:
        name = str(uuid.uuid4())
        receipt, answer = await self.submit(PATH, request, json=[task(request, name)])
        return receipt if answer is None else Receipt(name, receipt.status)

    async def look(self, job_id: str, tenant: str) -> Look:
        answer = await self._answer(job_id, tenant)
        if failed := [entry for entry in answer.get("errors") or () if entry.get("status") == "error"]:
            return Look(State.FAILED, f"{failed[0]['code']}: {failed[0]['message']}")
        states = [entry["status"] for entry in answer.get("data", ())]
        if not states:
            raise httpx.DecodingError(f"{job_id}: the answer has no data")
        # The API has one word for what waits and what is worked on.
        return Look(State.COMPLETED if set(states) == {"success"} else State.WAITING)

    async def cancel(self, job_id: str, tenant: str) -> None:
        """Says nothing: the API has no word for it."""

    async def fetch(self, job_id: str, tenant: str, results: int) -> int:
        data = (await self._answer(job_id, tenant))["data"]
        return sum([await self.download(entry["videoURL"], tenant) for entry in data])

    async def _answer(self, job_id: str, tenant: str) -> dict[str, Any]:
        response = await self.ask("POST", PATH, tenant, json=[{"taskType": "getResponse", "taskUUID": job_id}])
        answer: dict[str, Any] = response.raise_for_status().json()
        return answer


def task(request: Planned, name: str) -> dict[str, Any]:
    """A videoInference task."""
    images = [data_uri("image/png", image) for image in media(request).images]
    return {
        "taskType": "videoInference",
        "taskUUID": name,
        "model": KNOWN[request.model].runware,
        "positivePrompt": f"{TAG}: {request.prompt}",
        "resolution": request.resolution.lower(),
        "duration": int(request.seconds),
        "numberResults": request.results,
        "inputs": {"referenceImages": [{"type": "image", "tag": TAG, "images": images}]},
    }
