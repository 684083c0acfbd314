"""Small servers of the shapes that other projects publish. Every job takes two looks to end; odd prompts fail."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

LOOKS = 2
FAIL = "fail"


class Jobs:
    """What was asked, and how often each job was looked at."""

    def __init__(self) -> None:
        self.asked: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.stopped: list[str] = []
        self._numbers = itertools.count()

    def add(self, asked: Mapping[str, Any], job_id: str | None = None) -> str:
        job_id = job_id or f"job-{next(self._numbers)}"
        self.asked[job_id], self.looks[job_id] = dict(asked), 0
        return job_id

    def look(self, job_id: str) -> int:
        if job_id not in self.asked:
            raise HTTPException(404, "not found")
        self.looks[job_id] += 1
        return self.looks[job_id]


def vllm_omni(jobs: Jobs) -> FastAPI:
    """Forms only; queued, in_progress, then completed with stage durations, or an error status once failed."""
    app = FastAPI()

    @app.post("/v1/videos")
    async def create(
        prompt: Annotated[str, Form()],
        width: Annotated[int, Form()],
        height: Annotated[int, Form()],
        num_frames: Annotated[int, Form()],
        fps: Annotated[int, Form()],
        seed: Annotated[int, Form()],
        num_inference_steps: Annotated[int | None, Form()] = None,
        audio_reference: Annotated[str | None, Form()] = None,
        input_reference: Annotated[UploadFile | None, File()] = None,
    ) -> dict[str, Any]:
        asked = {
            "prompt": prompt, "size": (width, height), "frames": num_frames, "fps": fps, "seed": seed,
            "steps": num_inference_steps, "image": input_reference and input_reference.content_type,
            "audio": audio_reference and json.loads(audio_reference)["audio_url"][:14],
        }  # fmt: skip
        return {"id": jobs.add(asked), "status": "queued", "created_at": 1701234567}

    @app.get("/v1/videos/{job_id}")
    async def get(job_id: str) -> Response:
        seen = jobs.look(job_id)
        video: dict[str, Any] = {"id": job_id, "object": "video", "error": None, "stage_durations": {}}
        if seen < LOOKS:
            return JSONResponse(video | {"status": "in_progress"})
        if jobs.asked[job_id]["prompt"] == FAIL:
            return JSONResponse({"error": {"message": "out of memory"}}, 500)
        return JSONResponse(video | {"status": "completed", "stage_durations": {"denoise": 1.5}})

    _openai_rest(app, jobs)
    return app


def sglang(jobs: Jobs) -> FastAPI:
    """A form with an image or JSON without; queued until completed or failed."""
    app = FastAPI()

    @app.post("/v1/videos")
    async def create(
        request: Request,
        prompt: Annotated[str | None, Form()] = None,
        input_reference: Annotated[UploadFile | None, File()] = None,
        size: Annotated[str | None, Form()] = None,
        extra_body: Annotated[str | None, Form()] = None,
    ) -> dict[str, Any]:
        if "multipart/form-data" in request.headers["content-type"]:
            if input_reference is None:
                raise HTTPException(400, "input_reference file is required")
            asked = {"prompt": prompt, "size": size, **json.loads(extra_body or "{}")}
            asked["image"] = input_reference.content_type
        else:
            asked = await request.json()
        return {"id": jobs.add(asked), "status": "queued", "progress": 0}

    @app.get("/v1/videos/{job_id}")
    async def get(job_id: str) -> dict[str, Any]:
        seen = jobs.look(job_id)
        if seen < LOOKS:
            return {"id": job_id, "status": "queued"}
        failed = jobs.asked[job_id]["prompt"] == FAIL
        return {"id": job_id, "status": "failed", "error": {"message": "no"}} if failed else {"status": "completed"}

    _openai_rest(app, jobs)
    return app


def _openai_rest(app: FastAPI, jobs: Jobs) -> None:
    @app.delete("/v1/videos/{job_id}")
    async def delete(job_id: str) -> dict[str, Any]:
        jobs.stopped.append(job_id)
        return {"id": job_id, "deleted": True}

    @app.get("/v1/videos/{job_id}/content")
    async def content(job_id: str) -> Response:
        return Response(b"x" * 100, media_type="video/mp4")


class VideoTask(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = ""
    image_path: str = ""
    seed: int | None = None
    size: list[int] = []
    num_frames: int | None = None
    save_result_path: str | None = None


def lightx2v(jobs: Jobs, most: int) -> FastAPI:
    """Tasks: pending, processing, completed; a full queue is a 503 without advice."""
    app = FastAPI()
    router = APIRouter(prefix="/v1/tasks")

    @router.post("/video/")
    async def create(task: VideoTask) -> dict[str, Any]:
        if len(jobs.asked) >= most:
            raise HTTPException(503, "Task queue is full")
        job_id = jobs.add(task.model_dump())
        return {"task_id": job_id, "task_status": "pending", "save_result_path": task.save_result_path}

    @router.get("/{job_id}/status")
    async def status(job_id: str) -> dict[str, Any]:
        seen = jobs.look(job_id)
        failed = jobs.asked[job_id]["prompt"] == FAIL
        ended = {"status": "failed", "error": "no"} if failed else {"status": "completed", "error": None}
        return {"task_id": job_id, "status": "processing", "error": None} if seen < LOOKS else ended

    @router.get("/{job_id}/result")
    async def result(job_id: str) -> Response:
        return Response(b"x" * 100, media_type="video/mp4")

    @router.delete("/{job_id}")
    async def stop(job_id: str) -> dict[str, Any]:
        jobs.stopped.append(job_id)
        return {"stop_status": "success", "reason": ""}

    app.include_router(router)
    return app
