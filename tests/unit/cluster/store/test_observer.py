"""What a process learns of its own store, and a job's trace on its way through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.errors import NotFound, Unavailable
from cluster.records import Failure, JobState
from cluster.store import open_store
from cluster.store.attempts import Attempt, Outcome
from cluster.store.base import JobStore
from cluster.store.observer import Ended, Kind, Moment, Retry
from cluster.trace import Trace
from tests.unit.cluster.makers import request
from tests.unit.cluster.store.play import TENANT, Play

TRACE = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
LOST = Failure("worker_lost", "The worker died.")


@dataclass
class Notes:
    """An observer that remembers."""

    transactions: list[tuple[Kind, float, bool]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    def asked(self, kind: Kind, seconds: float, *, answered: bool) -> None:
        self.transactions.append((kind, seconds, answered))

    def committed(self, moments: Sequence[Moment]) -> None:
        self.moments += moments

    def of(self, kind: type[Moment]) -> list[Moment]:
        return [moment for moment in self.moments if isinstance(moment, kind)]


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
async def store(tmp_path: Path, notes: Notes) -> AsyncIterator[JobStore]:
    store = open_store(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}", notes)
    await store.open()
    yield store
    await store.close()


async def test_a_trace_goes_with_every_call_and_ends_with_the_job(play: Play, notes: Notes) -> None:
    await play.create(request=request(trace=TRACE))
    assert (await play.job()).request.trace == TRACE
    await play.until("denoise")
    work = await play.take("denoise")
    assert work.call.trace == work.request.trace == TRACE
    assert work.call.named["trace_id"] == TRACE.id
    await play.store.cancel_job("j1", TENANT)
    (ended,) = notes.of(Ended)
    assert isinstance(ended, Ended)
    assert (ended.job_id, ended.tenant_id, ended.state, ended.trace) == ("j1", TENANT, JobState.CANCELLED, TRACE)
    job = await play.job()
    assert (ended.created_at, ended.finished_at, ended.model) == (job.created_at, job.finished_at, job.request.model)


async def test_a_job_without_a_trace(play: Play) -> None:
    await play.create()
    call = await play.dispatch("text")
    assert call.trace is None
    assert "trace_id" not in call.named


async def test_an_end_is_told_once_with_what_led_to_it(play: Play, notes: Notes) -> None:
    await play.create()
    first = (await play.take("text")).call
    await play.store.lose(first, LOST, max_losses=2)
    second = (await play.take("text")).call
    await play.store.release(second)
    third = (await play.take("text")).call
    await play.store.lose(third, LOST, max_losses=2)
    await play.store.lose(third, LOST, max_losses=2)  # nothing is left to lose
    assert notes.of(Retry) == [Retry("text", "worker_lost"), Retry("text", "released")]
    outcomes = [moment.outcome for moment in notes.of(Attempt) if isinstance(moment, Attempt)]
    assert outcomes == [Outcome.LOST, Outcome.RELEASED, Outcome.LOST]
    (ended,) = notes.of(Ended)
    assert isinstance(ended, Ended)
    assert (ended.state, ended.code) == (JobState.FAILED, "worker_lost")


async def test_what_is_rolled_back_is_not_told(play: Play, notes: Notes) -> None:
    await play.create()
    before = list(notes.moments)
    with pytest.raises(NotFound):
        await play.store.cancel_job("j1", "somebody else")
    assert notes.moments == before


async def test_transactions_are_timed_by_kind(play: Play, notes: Notes) -> None:
    notes.transactions.clear()
    await play.create()
    await play.job()
    await play.dispatch("text")
    assert [kind for kind, _, _ in notes.transactions] == ["write", "read", "light_write"]
    assert all(seconds > 0 and answered for _, seconds, answered in notes.transactions)
    await play.store.close()
    with pytest.raises(Unavailable):
        await play.store.now()
    assert notes.transactions[-1][2] is False
