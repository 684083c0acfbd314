"""Stages' attempts from an event log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from loadtest.client.spans import Log
from loadtest.records import Span

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def add(log: Log, event: str, at_s: float, **data: Any) -> None:
    log.add(event, {"at": (BEGAN + timedelta(seconds=at_s)).isoformat(), **data})


def stage(log: Log, at_s: float, state: str, attempt: int = 1, name: str = "text") -> None:
    add(log, "stage", at_s, stage=name, result=0, chunk=0, state=state, attempt=attempt)


def test_a_lost_attempt_is_not_counted_and_the_next_is() -> None:
    log = Log()
    add(log, "created", 0, state="queued")
    stage(log, 0, "ready")
    stage(log, 0.5, "dispatched")
    stage(log, 1, "claimed")
    add(log, "state", 1, state="running", status="in_progress")
    stage(log, 3, "ready")
    stage(log, 4, "claimed", attempt=2)
    add(log, "segment", 5, index=0)
    stage(log, 6, "done", attempt=2)
    add(log, "state", 7, state="done", status="completed")
    assert log.spans == [Span("text", 0, 0, 1, 0, 1, 3, False), Span("text", 0, 0, 2, 3, 4, 6, True)]
    assert (log.running_s, log.ended_s, log.previewed, log.error) == (1, 7, True, None)


def test_what_was_open_ends_with_the_job_and_is_not_counted() -> None:
    log = Log()
    add(log, "created", 0, state="queued")
    stage(log, 0, "ready")
    stage(log, 0, "ready", name="condition")
    stage(log, 1, "claimed")
    add(log, "state", 2, state="failed", status="failed", code="out_of_memory", message="no room")
    assert log.spans == [Span("text", 0, 0, 1, 0, 1, 2, False)]
    assert log.error == "out_of_memory: no room"
