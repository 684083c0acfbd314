"""A video server of known law: one queue, equal workers, service times drawn from a distribution. No video is made.

It speaks this project's OpenAI dialect with event streams and Server-Timing, over ASGI in the process or over HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Law = Callable[[random.Random], float]


def exponential(mean_s: float) -> Law:
    return lambda draw: draw.expovariate(1 / mean_s)


def constant(seconds: float) -> Law:
    return lambda draw: seconds


@dataclass
class Job:
    """One job; instants are the loop's."""

    id: str
    created_at: float
    began_at: float | None = None
    ended_at: float | None = None
    cancelled: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> str:
        if self.ended_at is not None:
            return "failed" if self.cancelled else "completed"
        return "queued" if self.began_at is None else "in_progress"


class Synthetic:
    """At most `most` jobs are open, more are refused. From `stall_at` on it does nothing for `stall_s`."""

    def __init__(
        self, workers: int, law: Law, *, most: int | None = None, stall_at: float = math.inf, stall_s: float = 0.0
    ) -> None:
        self.jobs: dict[str, Job] = {}
        self.law, self.most = law, most
        self.stall_at, self.stall_s = stall_at, stall_s
        self._draw = random.Random(1)
        self._workers = workers
        self._free: asyncio.Semaphore | None = None
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        video = "/v1/videos/{id}"
        self.app = Starlette(
            routes=[
                Route("/v1/videos", self.create, methods=["POST"]),
                Route(video, self.get),
                Route(f"{video}/events", self.events),
                Route(f"{video}/cancel", self.cancel, methods=["POST"]),
                Route(f"{video}/content", self.content),
                Route("/metrics", self.metrics),
                Route("/v1/usage", self.usage),
            ]
        )

    async def create(self, request: Request) -> Response:
        await request.body()  # whatever is asked
        await self._stall()
        waiting = sum(job.ended_at is None for job in self.jobs.values()) if self.most is not None else 0
        if self.most is not None and waiting >= self.most:
            return JSONResponse({"error": {"message": "full"}}, 429, headers={"Retry-After": "2"})
        if self._free is None:
            self._free = asyncio.Semaphore(self._workers)
        job = Job(f"video_{next(self._numbers)}", asyncio.get_running_loop().time())
        self.jobs[job.id] = job
        task = asyncio.create_task(self._work(job, self._free, self.law(self._draw)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return JSONResponse({"id": job.id, "status": "queued"})

    async def _work(self, job: Job, free: asyncio.Semaphore, service_s: float) -> None:
        loop = asyncio.get_running_loop()
        async with free:
            await self._stall()
            if not job.cancelled:
                job.began_at = loop.time()
                await asyncio.sleep(service_s)
        job.ended_at = loop.time()
        job.over.set()

    async def _stall(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.stall_at <= now < self.stall_at + self.stall_s:
            await asyncio.sleep(self.stall_at + self.stall_s - now)

    async def get(self, request: Request) -> Response:
        await self._stall()
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return JSONResponse({"error": {"message": "no such video"}}, 404)
        headers = {}
        if job.ended_at is not None:
            began_at = job.began_at or job.ended_at
            spent = {"queue": began_at - job.created_at, "make": job.ended_at - began_at}
            spent["total"] = job.ended_at - job.created_at
            headers["Server-Timing"] = ", ".join(f"{name};dur={value * 1000:.3f}" for name, value in spent.items())
        error = {"code": "cancelled", "message": "by its caller"} if job.cancelled else None
        return JSONResponse({"id": job.id, "status": job.status, "error": error}, headers=headers)

    async def cancel(self, request: Request) -> Response:
        self.jobs[request.path_params["id"]].cancelled = True
        return JSONResponse({})

    async def content(self, request: Request) -> Response:
        return Response(b"x" * 1000, media_type="video/mp4")

    async def metrics(self, request: Request) -> Response:
        ready = sum(job.status == "queued" for job in self.jobs.values())
        text = "# TYPE skyreels_stage_ready gauge\n" + f'skyreels_stage_ready{{stage="make"}} {ready}\n'
        text += "# TYPE skyreels_stage_slots gauge\n" + f'skyreels_stage_slots{{stage="make"}} {self._workers}\n'
        return Response(text + "# TYPE python_info gauge\npython_info 1\n", media_type="text/plain")

    async def usage(self, request: Request) -> Response:
        worked = (job.ended_at - job.began_at for job in self.jobs.values() if job.ended_at and job.began_at)
        return JSONResponse({"stages": [{"stage": "make", "useful_s": sum(worked), "wasted_s": 0.0}]})

    async def events(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]]
        return StreamingResponse(self._stream(job, int(request.query_params["after"])), media_type="text/event-stream")

    async def _stream(self, job: Job, after: int) -> AsyncIterator[str]:
        await job.over.wait()
        stage = {"stage": "make", "result": 0, "chunk": 0, "attempt": 1}
        began_at = job.began_at or job.ended_at or 0.0
        ended_at = job.ended_at or 0.0
        status = "failed" if job.cancelled else "completed"
        log = [
            ("created", job.created_at, {"state": "queued"}),
            ("stage", job.created_at, {**stage, "state": "ready"}),
            ("stage", began_at, {**stage, "state": "claimed"}),
            ("state", began_at, {"state": "running", "status": "in_progress"}),
            ("segment", ended_at, {"index": 0}),
            ("stage", ended_at, {**stage, "state": "done"}),
            ("state", ended_at, {"state": "done", "status": status, "code": "cancelled", "message": "x"}),
        ]
        yield "retry: 2000\n\n: keep-alive\n\n"
        for number, (event, at, data) in enumerate(log, 1):
            if number > after:
                told = json.dumps({"at": datetime.fromtimestamp(at, UTC).isoformat(), **data})
                yield f"id: {number}\nevent: {event}\ndata: {told}\n\n"


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    """The application over HTTP on a port of its own, in a thread; its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
