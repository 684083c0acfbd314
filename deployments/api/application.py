"""The HTTP application: routers, error shapes, body limit, request ids."""

from __future__ import annotations

import secrets

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.trace import Trace
from deployments.api import (
    continuing,
    deliveries,
    errors,
    events,
    openapi,
    preview,
    status,
    unserved,
    uploads,
    usage,
    videos,
)
from deployments.api.boundary import Boundary
from deployments.api.feed import Feed
from deployments.api.runware import router as runware
from deployments.api.services import Services
from deployments.api.wavespeed import router as wavespeed
from deployments.telemetry import bound, logger
from deployments.tracing import caller


class RequestId:
    """Gives each request an id that is in its response and in every log line written for it, and reads the trace
    that it belongs to (W3C Trace Context).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(8)}"
        trace = Trace.read(Headers(scope=scope).get("traceparent", ""))

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        token = caller.set(trace)
        try:
            with bound(request_id=request_id, **({} if trace is None else {"trace_id": trace.id})):
                await self._app(scope, receive, stamped)
        finally:
            caller.reset(token)


class BodyTooLarge(Exception):
    """The body passed the limit while it was read."""


class BodyLimit:
    """Refuses a body over the limit, by its header where it has one and by counting where it lies."""

    def __init__(self, app: ASGIApp, max_nbytes: int) -> None:
        self._app = app
        self._max_nbytes = max_nbytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_nbytes:
                raise BodyTooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if not length.isdigit() or int(length) > self._max_nbytes:
                raise BodyTooLarge
            await self._app(scope, counted, watched)
        except BodyTooLarge:
            if started:
                raise
            message = f"The request body is over {self._max_nbytes} bytes; send smaller images or URLs."
            answer = errors.plain_refusal(scope["path"], 413, message, "body_too_large")
            await answer(scope, receive, send)


def create_app(services: Services) -> FastAPI:
    """The application over its services."""
    app = FastAPI(title="skyreels-serve", version="1", docs_url="/docs", redoc_url=None)
    app.state.services = services
    app.state.feed = Feed(services.store, logger(), most=services.config.api.max_streams)
    app.include_router(continuing.router)
    app.include_router(unserved.router)  # before the videos, whose ids would take its names
    app.include_router(videos.router)
    app.include_router(events.router)
    app.include_router(deliveries.router)
    app.include_router(preview.router)
    app.include_router(uploads.router)
    app.include_router(status.router)
    app.include_router(wavespeed.router)
    app.include_router(runware.router)
    app.include_router(usage.router)
    errors.install(app)
    openapi.install(app)
    app.add_middleware(BodyLimit, max_nbytes=services.config.media.max_body_nbytes)
    app.add_middleware(Boundary)
    app.add_middleware(RequestId)
    return app
