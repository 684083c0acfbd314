"""What every dialect tells of a job: its finished results, its failure, the time that was worked on it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.records import Failure, Job, JobState

_CANCELLED = Failure("cancelled", "The job was cancelled.")
_EXPIRED = Failure("expired", "The job passed its deadline before it was done.")
_ENDINGS = {JobState.CANCELLED: _CANCELLED, JobState.EXPIRED: _EXPIRED}


@dataclass(frozen=True, slots=True)
class Finished:
    """One result that can be fetched."""

    index: int
    seed: int
    uuid: str  # the same at every reading


def finished(job: Job) -> Sequence[Finished]:
    """The results that are published so far, in order."""
    return [
        Finished(result.index, result.seed, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{job.id}/{result.index}")))
        for result in job.results
        if result.artifact is not None
    ]


def failure(job: Job) -> Failure | None:
    """Why the job ended without its results; None while it lives and when it is done."""
    return job.failure or _ENDINGS.get(job.state)


def worked_s(job: Job) -> float:
    """Seconds that workers have spent on its finished stages."""
    return sum(
        (stage.done_at - stage.claimed_at).total_seconds()
        for stage in job.stages
        if stage.done_at is not None and stage.claimed_at is not None
    )


def cost_usd(job: Job) -> float:
    """Price of one published result in US dollars: all results of a job cost the same."""
    return float(job.cost_usd) / max(len(finished(job)), 1)
