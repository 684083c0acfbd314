"""`GET /v1/videos/{id}/events`: a job's log as Server-Sent Events, from any point, live to its end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cluster.deliveries import STATE
from cluster.errors import InvalidRequest
from cluster.records import Event, JobState
from deployments.api.feed import Feed, Subscription, ends
from deployments.api.schemas import STATUS
from deployments.api.services import Served, Tenant
from deployments.api.videos import ERRORS

KEEP_ALIVE_S = 15.0
RETRY_MS = 2000
MEDIA_TYPE = "text/event-stream"
_INTERNAL = frozenset({"worker"})  # names of our processes
DESCRIPTION = """The job's log as Server-Sent Events, whatever the request accepts. `id` is the event's number, from 1
without gaps; `event` its type; `data` one JSON object, always with `at` (RFC 3339).

| event | data beside `at` |
|---|---|
| `created` | `state` |
| `stage` | `stage`, `result`, `chunk`, `state`, `attempt`; `seconds` in the state before; `code`, `message` |
| `phase` | `phase`, `progress` 0–1 |
| `progress` | `progress` 0–1; `stage`, `result`, `chunk`, `step`, `steps` that moved it; at most one a second |
| `snapshot` | `stage`, `result`, `chunk`, `step` that a next attempt would go on from |
| `segment` | `stage`, `result`, `chunk`, `index`, `first_frame`, `frames` that can be watched |
| `result` | `index` of a result that can be fetched |
| `failed` | `code`, `message` |
| `state` | `state`, `status` as in the video object; `code`, `message` |

Fields may be added. The stream ends after the status `completed` or `failed`. `Last-Event-ID`, or `after`, goes on
behind an event; behind the last one the answer is 204, on which browsers stop to reconnect."""

router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=ERRORS)


class EventStream(StreamingResponse):
    """Ends its subscription however the connection ends, also before the first byte."""

    def __init__(self, feed: Feed, subscription: Subscription) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(stream(subscription), media_type=MEDIA_TYPE, headers=headers)
        self._feed = feed
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feed.unsubscribe(self._subscription)


@router.get(
    "/{video_id}/events",
    response_class=StreamingResponse,
    description=DESCRIPTION,
    responses={200: {"content": {MEDIA_TYPE: {}}}, 204: {"description": "There is nothing more."}},
)
async def events(
    video_id: str,
    request: Request,
    services: Served,
    tenant: Tenant,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """A job's events, live."""
    if last_event_id is not None:
        if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 10):
            raise InvalidRequest("Last-Event-ID must be the id of an event of this stream.", param="Last-Event-ID")
        after = int(last_event_id)
    job = await services.store.get_job(video_id, tenant)
    if after > 0:
        known = (await services.store.feed({job.id: after - 1}, limit=1)).get(job.id)
        if not known:
            raise InvalidRequest(f"Video {video_id} has no event {after} yet.", param="after")
        if ends(known[0]):
            return Response(status_code=204)
    feed: Feed = request.app.state.feed
    return EventStream(feed, feed.subscribe(job.id, after))


async def stream(subscription: Subscription) -> AsyncIterator[bytes]:
    """The stream's bytes; a comment now and then shows both ends that the other is there."""
    yield f"retry: {RETRY_MS}\n\n".encode()
    while True:
        event = await subscription.next(KEEP_ALIVE_S)
        if event is not None:
            yield framed(event)
            if ends(event):
                return
        elif subscription.gone:
            return
        else:
            yield b": keep-alive\n\n"


def framed(event: Event) -> bytes:
    """One event on the wire."""
    data = {"at": event.at.isoformat()} | {key: value for key, value in event.data.items() if key not in _INTERNAL}
    if event.type == STATE:
        data["status"] = STATUS[JobState(str(event.data["state"]))]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.seq}\nevent: {event.type}\ndata: {text}\n\n".encode()
