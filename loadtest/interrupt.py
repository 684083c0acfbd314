"""SIGINT and SIGTERM: a run is first asked to come to its end, then told to."""

from __future__ import annotations

import signal
import sys
import time
from threading import Event
from types import FrameType, TracebackType
from typing import Any, Self

TWICE_S = 2.0  # `timeout` and `make` pass a signal on to a child that may already have had it


class Interrupts:
    """While it is open a signal exits, running every `finally`; after `defer` the first one only sets the event."""

    def __init__(self) -> None:
        self._enough: Event | None = None
        self._first_at: float | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def defer(self) -> Event:
        """Set by the next signal, which does nothing else."""
        self._enough = Event()
        return self._enough

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._enough is None:
            sys.exit(128 + number)
        if self._first_at is None:
            self._first_at = now
            self._enough.set()
        elif now - self._first_at > TWICE_S:
            sys.exit(128 + number)
