"""Jobs as read from the store, for views."""

from __future__ import annotations

from typing import Any

from cluster.records import Failure, Job, JobState, Result
from tests.unit.cluster.makers import ARTIFACT, EPOCH, request

BROKEN = Failure("out_of_memory", "The device ran out of memory; ask for a smaller size.")


def job(state: JobState = JobState.QUEUED, **changes: Any) -> Job:
    """A job without stages; `changes` are the request's."""
    asked = request(**changes)
    return Job(
        id="video_1",
        tenant_id="acme",
        request=asked,
        graph="r2v",
        state=state,
        phase=state.value,
        progress=0.0,
        created_at=EPOCH,
        started_at=None,
        finished_at=None,
        expires_at=None,
        attempts=0,
        failure=BROKEN if state is JobState.FAILED else None,
        results=tuple(
            Result(index, asked.seed_of(index), ARTIFACT if state is JobState.DONE else None)
            for index in range(asked.n)
        ),
        stages=(),
    )


def done(**changes: Any) -> Job:
    """A job whose results can be fetched."""
    return job(JobState.DONE, **changes)
