"""What a process may learn of its own store: how long transactions took, and what its commits have ended.

Told after the commit, so nothing is told that was rolled back, and what is committed is told once, by the process that
did it. A process killed in between tells nothing: counts are for watching, the ledger is for billing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from cluster.records import JobState
from cluster.store.attempts import Attempt
from cluster.trace import Trace

Kind = Literal["read", "write", "light_write"]


@dataclass(frozen=True, slots=True)
class Retry:
    """A stage became ready again; `reason` is a failure's code or "released"."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A job reached its end."""

    job_id: str
    tenant_id: str
    model: str
    state: JobState
    code: str | None  # of its failure
    created_at: datetime
    finished_at: datetime
    trace: Trace | None


Moment = Attempt | Retry | Ended


class Observer(Protocol):
    """Called in the event loop of the store; must not block and must not raise."""

    def asked(self, kind: Kind, seconds: float, *, answered: bool) -> None:
        """One transaction, from asking for it to its end; not `answered` when the store was unavailable."""

    def committed(self, moments: Sequence[Moment]) -> None:
        """What a commit has ended, in its order."""


class Unobserved:
    """Nobody looks."""

    def asked(self, kind: Kind, seconds: float, *, answered: bool) -> None:
        """See `Observer`."""

    def committed(self, moments: Sequence[Moment]) -> None:
        """See `Observer`."""
