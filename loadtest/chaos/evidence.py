"""What was seen: one record per job, one per hurt process, and the listing at the end. The verdict reads only this."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from loadtest.chaos.log import Log
from loadtest.chaos.media import Film
from loadtest.chaos.receiver import Receipt
from loadtest.chaos.scenario import JobPlan

COMPLETED = "completed"
FAILED = "failed"
ENDED = frozenset({COMPLETED, FAILED})
CLAIMED_ONCE = frozenset({"claimed", "done", "failed"})  # states of a stage that a worker has had


@dataclass
class JobRecord:
    """One job that was asked for, or one of a lost answer that the listing showed (`plan` is None)."""

    plan: JobPlan | None
    tenant: int
    id: str = ""
    refusal: str | None = None  # the create was refused
    last: dict[str, Any] = field(default_factory=dict)  # newest answer
    stopped: bool = False  # cancel was answered
    deleted: bool = False  # delete was answered
    oddities: list[str] = field(default_factory=list)  # what an observer must never see
    films: list[Film] = field(default_factory=list)
    log: Log | None = None
    ended_after_s: float | None = None

    def see(self, video: dict[str, Any]) -> None:
        """Takes an answer in and notes what cannot be true beside the one before."""
        before, status = self.last, video["status"]
        if before:
            if before["status"] in ENDED and status != before["status"]:
                self.oddities.append(f"left {before['status']} for {status}")
            if before["status"] == "in_progress" and status == "queued":
                self.oddities.append("went back to queued")
            if video["progress"] < before["progress"] and status != FAILED:
                self.oddities.append(f"progress fell from {before['progress']} to {video['progress']}")
        claimed = any(stage["attempt"] > 0 or stage["state"] in CLAIMED_ONCE for stage in video["stages"])
        if status == "in_progress" and video["phase"] != "waiting" and not claimed:
            self.oddities.append("in_progress before any worker had a stage")
        if status == COMPLETED and any(stage["state"] != "done" for stage in video["stages"]):
            self.oddities.append("completed with a stage that is not done")
        self.last = video

    @property
    def status(self) -> str:
        return str(self.last.get("status", "unknown"))


@dataclass
class Hurt:
    """One process that was killed, stopped for a while or replaced; or an outage of the job store."""

    at_s: float  # since the start
    kind: str
    pid: int
    signal: str  # or the fault, where there is none
    freeze_s: float = 0.0
    whole_after_s: float | None = None  # until the kind was complete and every stage had a slot; None = not seen


@dataclass
class Evidence:
    """Everything the verdict is about."""

    jobs: list[JobRecord]
    hurts: list[Hurt] = field(default_factory=list)
    listed: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # (tenant, video) as listed at the end
    lost_answers: int = 0  # creates whose answer was lost and that could not be asked for again by key
    busy_after: dict[str, int] = field(default_factory=dict)  # stages still waiting or running when all jobs had ended
    used: dict[int, Counter[str]] | None = None  # by tenant: what the ledger grew by
    per_second_usd: Decimal | None = None  # the price of what is asked for
    receipts: list[Receipt] | None = None
    unchecked: list[str] = field(default_factory=list)
    gave_up: list[str] = field(default_factory=list)
