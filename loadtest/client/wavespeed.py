"""WaveSpeed's API: submit a task, query its result. Its tasks take no number of results, R2V no size and no seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from cluster.registry import KNOWN
from loadtest.client.base import ASPECT, Dialect, Look, Receipt, State, media
from loadtest.inputs import data_uri
from loadtest.mixes import Entry
from loadtest.records import Planned

ROOT = "/api/v3"
STATES: Mapping[str, State] = {
    "created": State.WAITING,
    "processing": State.WORKING,
    "completed": State.COMPLETED,
    "failed": State.FAILED,
}


class WaveSpeed(Dialect):
    """Looks by polling. There is no cancel: a task that is given up goes on."""

    name = "wavespeed"

    def unable(self, entry: Entry) -> str | None:
        known = KNOWN[entry.model]
        if known.wavespeed is None:
            return f"{entry.model} has no WaveSpeed path"
        if set(entry.results) != {1}:
            return "WaveSpeed's tasks have one result"
        if known.limits.aspect_ratios and not set(entry.resolutions) <= {"64P", known.limits.default_resolution}:
            return f"WaveSpeed's {known.task} takes no resolution: the checkpoint's default is made"
        return None

    async def create(self, request: Planned) -> Receipt:
        receipt, answer = await self.submit(f"{ROOT}/{KNOWN[request.model].wavespeed}", request, json=body(request))
        return receipt if answer is None else Receipt(answer["data"]["id"], receipt.status)

    async def look(self, job_id: str, tenant: str) -> Look:
        data = await self._data(job_id, tenant)
        timings = data.get("timings") or {}
        worked_s = timings.get("inference", 0) / 1000
        state = STATES[data["status"]]
        return Look(state, data["error"] or None, stage_s={"inference": worked_s} if state.over else {})

    async def cancel(self, job_id: str, tenant: str) -> None:
        """Says nothing: the API has no word for it."""

    async def fetch(self, job_id: str, tenant: str, results: int) -> int:
        outputs = (await self._data(job_id, tenant))["outputs"]
        return sum([await self.download(url, tenant) for url in outputs])

    async def _data(self, job_id: str, tenant: str) -> dict[str, Any]:
        answer = await self.get(f"{ROOT}/predictions/{job_id}/result", tenant)
        if "data" not in answer:
            raise httpx.DecodingError(f"{job_id}: the answer has no data")
        data: dict[str, Any] = answer["data"]
        return data


def body(request: Planned) -> dict[str, Any]:
    """The JSON of a task."""
    known = KNOWN[request.model]
    files = media(request)
    images = [data_uri("image/png", image) for image in files.images]
    if known.limits.aspect_ratios:
        duration = int(request.seconds)
        return {"prompt": request.prompt, "images": images, "aspect_ratio": ASPECT, "duration": duration}
    asked: dict[str, Any] = {"prompt": request.prompt, "resolution": request.resolution, "seed": request.seed}
    if files.voice is not None:
        return asked | {"image": images[0], "audio": data_uri("audio/wav", files.voice)}
    return asked | {"video": data_uri("video/mp4", files.video or b""), "duration": int(request.seconds)}
