"""What a webhook says, by the dialect that its job was asked for in, and how it is signed (Standard Webhooks).

A `Render` is the seam for dialects: `render(job, event, result)` is the body of the webhook that tells of an event of a
job, and of one of its results where the dialect tells of each. The Courier has a table of them. Bodies are rendered
when they are sent; the same event gives the same body.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from standardwebhooks import Webhook

from cluster.records import Dialect, Event, Job, JobState

Render = Callable[[Job, Event, int | None], dict[str, Any]]


def openai(job: Job, event: Event, _result: int | None) -> dict[str, Any]:
    """OpenAI's webhook event."""
    return {
        "id": f"evt_{job.id}_{event.seq}",
        "object": "event",
        "type": "video.completed" if job.state is JobState.DONE else "video.failed",
        "created_at": int(event.at.timestamp()),
        "data": {"id": job.id},
    }


def body(renders: Mapping[Dialect, Render], job: Job, event: Event, result: int | None) -> bytes:
    """The body as sent and signed."""
    fields = renders[job.request.delivery.dialect](job, event, result)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def signed(delivery_id: str, data: bytes, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """The headers of a signed webhook: one signature for each secret, so that receivers may change at leisure."""
    text = data.decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(delivery_id, at, text) for secret in secrets),
    }
