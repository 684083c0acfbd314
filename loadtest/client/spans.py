"""From a job's event log to its stages' attempts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cluster.records import StageState
from loadtest.records import Span

Key = tuple[str, int, int]


@dataclass(slots=True)
class _Attempt:
    ready_s: float
    began_s: float | None = None
    number: int = 0


@dataclass(slots=True)
class Log:
    """Reads the events of one job in their order. Times are seconds since its creation, by the server's clock."""

    created_at: datetime | None = None
    running_s: float | None = None
    ended_s: float | None = None
    state: str = "queued"
    status: str = "queued"
    error: str | None = None
    previewed: bool = False
    spans: list[Span] = field(default_factory=list)
    _open: dict[Key, _Attempt] = field(default_factory=dict)

    def add(self, event: str, data: Mapping[str, Any]) -> None:
        """One event as the stream gives it. KeyError, ValueError: it is none of ours."""
        at = datetime.fromisoformat(data["at"])
        self.created_at = self.created_at or at
        now_s = (at - self.created_at).total_seconds()
        match event:
            case "stage":
                self._stage(data, now_s)
            case "segment" | "result":
                self.previewed = True
            case "state":
                self._state(data, now_s)

    def _state(self, data: Mapping[str, Any], now_s: float) -> None:
        self.state, self.status = data["state"], data["status"]
        if self.state == "running" and self.running_s is None:
            self.running_s = now_s
        if self.status in {"completed", "failed"}:
            self.ended_s = now_s
            self.error = f"{data.get('code')}: {data.get('message')}" if self.status == "failed" else None
            for key in tuple(self._open):
                self._close(key, now_s, counted=False)

    def _stage(self, data: Mapping[str, Any], now_s: float) -> None:
        key = (data["stage"], data["result"], data["chunk"])
        match data["state"]:
            case StageState.READY:
                self._close(key, now_s, counted=False)
                self._open[key] = _Attempt(now_s)
            case StageState.CLAIMED if key in self._open:
                self._open[key].began_s, self._open[key].number = now_s, data["attempt"]
            case StageState.DONE:
                self._close(key, now_s, counted=True)
            case StageState.FAILED | StageState.CANCELLED:
                self._close(key, now_s, counted=False)

    def _close(self, key: Key, now_s: float, *, counted: bool) -> None:
        attempt = self._open.pop(key, None)
        if attempt is not None and attempt.began_s is not None:
            self.spans.append(Span(*key, attempt.number, attempt.ready_s, attempt.began_s, now_s, counted))
