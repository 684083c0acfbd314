"""From the evidence to the list of violations: a pure function, so that each rule has a test without a system."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from loadtest.chaos import log, usage, webhooks
from loadtest.chaos.evidence import COMPLETED, ENDED, FAILED, Evidence, JobRecord
from loadtest.chaos.media import Film


def judge(evidence: Evidence) -> list[str]:
    """Every violation, as one sentence that begins with what it is about. Empty = passed."""
    found = list(evidence.gave_up)
    for record in evidence.jobs:
        name = record.id or f"job {record.plan.index if record.plan else '?'}"
        found += [f"{name}: {sentence}" for sentence in _job(record)]
    found += _twins(evidence.jobs)
    found += _listing(evidence)
    if evidence.used is not None:
        found += usage.violations(evidence.jobs, evidence.used, evidence.per_second_usd)
    if evidence.receipts is not None:
        found += webhooks.violations(evidence.jobs, evidence.receipts)
    found += [
        f"{stage}: {count} stages wait or run after every job has ended"
        for stage, count in evidence.busy_after.items()
        if count
    ]
    return found


def _job(record: JobRecord) -> Iterator[str]:
    yield from record.oddities
    if record.refusal is not None:
        yield f"the create was refused: {record.refusal}"
        return
    if record.deleted:
        return
    if record.status not in ENDED:
        yield f"lost: last seen {record.status}"
    if record.status == FAILED:
        error = record.last["error"] or {}
        if not (record.stopped and error.get("code") == "cancelled"):
            yield f"failed without being asked to: {error.get('code')}: {error.get('message')}"
    if record.status == COMPLETED:
        yield from _films(record)
    if record.log is not None:
        yield from log.violations(record.log)


def _films(record: JobRecord) -> Iterator[str]:
    wanted = record.plan.n if record.plan else len(record.last["results"])
    seeds = [record.last["seed"] + index for index in range(wanted)]
    if [film.seed for film in record.films] != seeds:
        yield f"results of seeds {[film.seed for film in record.films]} instead of {seeds}"
    for index, film in enumerate(record.films):
        if film.flaw is not None:
            yield f"result {index} cannot be decoded: {film.flaw}"
        elif (film.frames, film.size) != (record.last["frames"], record.last["size"]):
            wanted_film = f"{record.last['frames']} frames of {record.last['size']}"
            yield f"result {index} has {film.frames} frames of {film.size} instead of {wanted_film}"


def _twins(jobs: list[JobRecord]) -> Iterator[str]:
    """Results of equal requests and seeds, whichever job and result index they belong to, have equal bytes."""
    seen: defaultdict[tuple[Any, ...], dict[str, tuple[str, Film]]] = defaultdict(dict)
    for record in jobs:
        for film in record.films:
            if film.flaw is None:
                last = record.last
                seen[last["prompt"], last["seconds"], last["size"], film.seed].setdefault(
                    film.sha256, (record.id, film)
                )
    for (prompt, seconds, size, seed), files in seen.items():
        if len(files) > 1:
            frames = len({film.pixels_sha256 for _, film in files.values()})
            names = ", ".join(job_id for job_id, _ in files.values())
            yield (
                f"seed {seed}, {seconds} s, {size}, {prompt!r}: {len(files)} different files "
                f"({frames} different videos) of equal requests: {names}"
            )


def _listing(evidence: Evidence) -> Iterator[str]:
    """Each job that was not deleted is listed once, as it was last seen; nobody lists anything else."""
    times = Counter(video["id"] for _, video in evidence.listed)
    yield from (f"{job_id}: listed {count} times" for job_id, count in times.items() if count > 1)
    listed = {video["id"]: (tenant, video) for tenant, video in evidence.listed}
    known = {record.id: record for record in evidence.jobs if record.id}
    for job_id, record in known.items():
        if record.deleted and job_id in listed:
            yield f"{job_id}: listed after its delete"
        elif not record.deleted and job_id not in listed:
            yield f"{job_id}: lost: accepted and not in the listing"
        elif not record.deleted:
            tenant, video = listed[job_id]
            if video["status"] != record.status:
                yield f"{job_id}: listed as {video['status']}, last seen {record.status}"
            if tenant != record.tenant:
                yield f"{job_id}: listed by tenant {tenant}, belongs to tenant {record.tenant}"
    unknown = listed.keys() - known.keys()
    adopted = sum(record.plan is None for record in evidence.jobs)
    if len(unknown) + adopted > evidence.lost_answers:
        yield f"{len(unknown) + adopted} unknown jobs, and {evidence.lost_answers} creates whose answer was lost"
