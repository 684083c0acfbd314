"""The outermost edge: nothing leaves it but answers, and nothing enters it that no store can hold."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.errors import InvalidRequest, SkyreelsError
from deployments.api import errors
from deployments.telemetry import logger


class Boundary:
    """Answers 500 for an error that nobody expected, with the request's id and without its text, and logs it. Refuses
    URLs with a NUL character: no database keeps one, and no id has one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = logger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope.get("query_string", b""):
            refused = InvalidRequest("A URL must not contain a NUL character.")
            await errors.refusal(scope["path"], refused)(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            self._log.info("the client left before its request was read")
        except Exception as error:
            if started:
                raise  # a cut connection is all that can still tell the client
            self._log.error("request failed", exc_info=error, extra={"path": scope["path"]})
            failure = SkyreelsError("The server made a mistake; tell the operator the x-request-id of this answer.")
            await errors.refusal(scope["path"], failure)(scope, receive, send)
