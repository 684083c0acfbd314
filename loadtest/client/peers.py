"""Other projects' servers, so that they are asked for the same work: as many frames, pixels and steps.

Each class names the source that it was written from. It has been run against servers of those shapes in the tests, not
against the projects themselves. A server has one model, so a request's model is not sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cluster.registry import KNOWN
from loadtest.client.base import AWAY, FPS, Dialect, Look, Receipt, State, frames, media, pixels
from loadtest.client.openai import STATES
from loadtest.inputs import data_uri
from loadtest.mixes import Entry
from loadtest.records import Planned


def _one_result(entry: Entry, server: str) -> str | None:
    return None if set(entry.results) == {1} else f"{server} is asked for one result at a time"


class VllmOmni(Dialect):
    """vLLM-Omni: `/v1/videos`, forms only. Source: vllm-project/vllm-omni, docs/serving/videos_api.md at 0131cb5 and
    entrypoints/openai/protocol/videos.py at 079d7a5. A failed job is read with an error status.
    """

    name = "vllm-omni"

    def unable(self, entry: Entry) -> str | None:
        return _one_result(entry, "vLLM-Omni")

    async def create(self, request: Planned) -> Receipt:
        width, height = pixels(request.resolution)
        fields = {
            "prompt": request.prompt,
            "width": str(width),
            "height": str(height),
            "num_frames": str(frames(request.seconds)),
            "fps": str(FPS),
            "seed": str(request.seed),
        }
        if request.steps is not None:
            fields["num_inference_steps"] = str(request.steps)
        files = media(request)
        if files.voice is not None:
            fields["audio_reference"] = json.dumps({"audio_url": data_uri("audio/wav", files.voice)})
        reference = _reference(files.video, files.images)
        parts: dict[str, Any] = {name: (None, value) for name, value in fields.items()}  # a form of parts in any case
        receipt, answer = await self.submit("/v1/videos", request, files=parts | reference)
        return receipt if answer is None else Receipt(answer["id"], receipt.status)

    async def look(self, job_id: str, tenant: str) -> Look:
        response = await self.ask("GET", f"/v1/videos/{job_id}", tenant)
        if response.status_code in AWAY:
            response.raise_for_status()
        if response.is_error:
            return Look(State.FAILED, f"{response.status_code}: {response.text[:300]}")
        video = response.json()
        error = video.get("error")
        return Look(
            STATES[video["status"]],
            None if error is None else f"{error['code']}: {error['message']}",
            stage_s=video.get("stage_durations") or {},
        )

    async def cancel(self, job_id: str, tenant: str) -> None:
        (await self.ask("DELETE", f"/v1/videos/{job_id}", tenant)).raise_for_status()

    async def fetch(self, job_id: str, tenant: str, results: int) -> int:
        return await self.download(f"/v1/videos/{job_id}/content", tenant)


class Sglang(Dialect):
    """SGLang-Diffusion: `/v1/videos`, JSON without an image and a form with one. Source: sgl-project/sglang,
    multimodal_gen/runtime/entrypoints/openai/video_api.py at 00ae37c. A job is queued until it is completed or failed,
    so waiting and working look alike; a delete forgets the job and does not stop it.
    """

    name = "sglang"

    def unable(self, entry: Entry) -> str | None:
        limits = KNOWN[entry.model].limits
        if entry.steps is not None:
            return "SGLang-Diffusion's number of steps is the server's; leave steps out"
        if limits.max_voices or limits.min_videos:
            return "SGLang-Diffusion's video API takes an image and neither voices nor videos"
        return _one_result(entry, "SGLang-Diffusion")

    async def create(self, request: Planned) -> Receipt:
        width, height = pixels(request.resolution)
        count = frames(request.seconds)
        size = f"{width}x{height}"
        images = media(request).images
        if images:
            extra = json.dumps({"fps": FPS, "num_frames": count})
            form = {"prompt": request.prompt, "size": size, "extra_body": extra}
            content: dict[str, Any] = {"data": form, "files": _reference(None, images)}
        else:
            asked = {"prompt": request.prompt, "size": size, "fps": FPS, "num_frames": count, "seed": request.seed}
            content = {"json": asked}
        receipt, answer = await self.submit("/v1/videos", request, **content)
        return receipt if answer is None else Receipt(answer["id"], receipt.status)

    async def look(self, job_id: str, tenant: str) -> Look:
        video = await self.get(f"/v1/videos/{job_id}", tenant)
        error = video.get("error")
        return Look(STATES[video["status"]], None if error is None else error["message"])

    async def cancel(self, job_id: str, tenant: str) -> None:
        (await self.ask("DELETE", f"/v1/videos/{job_id}", tenant)).raise_for_status()

    async def fetch(self, job_id: str, tenant: str, results: int) -> int:
        return await self.download(f"/v1/videos/{job_id}/content", tenant)


class LightX2V(Dialect):
    """LightX2V: `/v1/tasks/video`. Source: ModelTC/LightX2V, lightx2v/server/api/tasks at 0d6b494 and the request
    schema of that time (`num_frames`, `size` = [height, width], unknown fields refused). A full queue is a 503.
    """

    name = "lightx2v"

    STATES: Mapping[str, State] = {
        "pending": State.WAITING,
        "processing": State.WORKING,
        "completed": State.COMPLETED,
        "failed": State.FAILED,
        "cancelled": State.FAILED,
    }

    def unable(self, entry: Entry) -> str | None:
        limits = KNOWN[entry.model].limits
        if entry.steps is not None:
            return "LightX2V's number of steps is set at its start; leave steps out"
        if limits.max_voices or limits.min_videos:
            return "LightX2V takes voices and videos as paths on its own disk"
        return _one_result(entry, "LightX2V")

    async def create(self, request: Planned) -> Receipt:
        width, height = pixels(request.resolution)
        images = [data_uri("image/png", image).partition(",")[2] for image in media(request).images]
        asked: dict[str, Any] = {
            "prompt": request.prompt,
            "num_frames": frames(request.seconds),
            "size": [height, width],
            "seed": request.seed,
            "save_result_path": f"load-{request.seed}-{request.index}.mp4",  # a task without one keeps nothing
        }
        if images:
            asked["image_path"] = images[0]
        receipt, answer = await self.submit("/v1/tasks/video/", request, json=asked)
        return receipt if answer is None else Receipt(answer["task_id"], receipt.status)

    async def look(self, job_id: str, tenant: str) -> Look:
        task = await self.get(f"/v1/tasks/{job_id}/status", tenant)
        return Look(self.STATES[task["status"]], task.get("error"))

    async def cancel(self, job_id: str, tenant: str) -> None:
        (await self.ask("DELETE", f"/v1/tasks/{job_id}", tenant)).raise_for_status()

    async def fetch(self, job_id: str, tenant: str, results: int) -> int:
        return await self.download(f"/v1/tasks/{job_id}/result", tenant)


def _reference(video: bytes | None, images: tuple[bytes, ...]) -> dict[str, tuple[str, bytes, str]]:
    """The one file of a form."""
    if video is not None:
        return {"input_reference": ("input.mp4", video, "video/mp4")}
    return {"input_reference": ("input.png", images[0], "image/png")} if images else {}
