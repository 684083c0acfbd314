"""Each rule of the verdict finds what it is for, and a healthy run has no violation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from loadtest.chaos.evidence import Evidence, JobRecord
from loadtest.chaos.log import parse, violations
from loadtest.chaos.media import Film
from loadtest.chaos.receiver import Receipt
from loadtest.chaos.scenario import Fate, JobPlan
from loadtest.chaos.verdict import judge

PLAN = JobPlan(0, 0, "A ball", 7, 1, 2, Fate.FINISH, 1.0, None, False, False, "once")


def answer(job_id: str, status: str = "completed", **changes: Any) -> dict[str, Any]:
    stage_state = {"completed": "done", "queued": "ready", "in_progress": "claimed"}.get(status, "cancelled")
    return {
        "id": job_id,
        "status": status,
        "phase": status,
        "progress": 100 if status == "completed" else 0,
        "prompt": "A ball",
        "seconds": "1",
        "size": "112x64",
        "frames": 25,
        "seed": 7,
        "error": None,
        "cost_usd": "0.08" if status == "completed" else "0",
        "attempts": 0,
        "stages": [{"stage": "text", "state": stage_state, "attempt": int(stage_state == "claimed")}],
        "results": [{"index": index, "url": "/" if status == "completed" else None} for index in range(2)],
        **changes,
    }


LOG: list[tuple[int, str, dict[str, Any]]] = [
    (1, "created", {"state": "queued"}),
    (2, "stage", {"stage": "text", "state": "claimed"}),
    (3, "state", {"state": "running"}),
    (4, "stage", {"stage": "text", "state": "done"}),
    (5, "state", {"state": "publishing"}),
    (6, "state", {"state": "done"}),
]
FILMS = [Film("a", 10, 25, "112x64", seed=7), Film("b", 10, 25, "112x64", seed=8)]


def healthy() -> Evidence:
    """A completed job, its twin, a cancelled and a deleted one."""
    done, twin = (
        JobRecord(PLAN, 0, job_id, last=answer(job_id), films=list(FILMS), log=list(LOG)) for job_id in ("one", "two")
    )
    error = {"code": "cancelled", "message": "The job was cancelled."}
    stopped = JobRecord(
        replace(PLAN, fate=Fate.CANCEL), 0, "three", last=answer("three", "failed", error=error), stopped=True
    )
    gone = JobRecord(replace(PLAN, fate=Fate.DELETE), 0, "four", last=answer("four", "queued"), deleted=True)
    jobs = [done, twin, stopped, gone]
    receipts = [
        Receipt(0, 0, "d1", "one", "video.completed", taken=False),
        Receipt(0, 0, "d1", "one", "video.completed", taken=True),
        Receipt(0, 0, "d2", "two", "video.completed", taken=True),
        Receipt(0, 0, "d3", "three", "video.failed", taken=True),
    ]
    used = Counter(
        {"videos": 4, "video_s": 4, "micro_usd": 160_000, "text": 3}
    )  # the deleted job had got as far as its text
    listed = [(0, record.last) for record in jobs[:3]]
    return Evidence(jobs, listed=listed, used={0: used}, receipts=receipts, per_second_usd=Decimal("0.04"))


def test_a_healthy_run_passes() -> None:
    assert judge(healthy()) == []


def lost(evidence: Evidence) -> None:
    evidence.listed.pop(0)


def listed_twice(evidence: Evidence) -> None:
    evidence.listed.append(evidence.listed[0])


def listed_after_delete(evidence: Evidence) -> None:
    evidence.listed.append((0, evidence.jobs[3].last))


def foreign(evidence: Evidence) -> None:
    evidence.listed[0] = (1, evidence.listed[0][1])


def unknown(evidence: Evidence) -> None:
    evidence.listed.append((0, answer("five")))


def changed_its_end(evidence: Evidence) -> None:
    evidence.listed[0] = (0, answer("one", "failed"))


def never_ended(evidence: Evidence) -> None:
    evidence.jobs[0].last = answer("one", "in_progress")
    evidence.listed[0] = (0, evidence.jobs[0].last)


def failed(evidence: Evidence) -> None:
    evidence.jobs[0].last = answer("one", "failed", error={"code": "worker_lost", "message": "Five times."})
    evidence.listed[0] = (0, evidence.jobs[0].last)


def result_missing(evidence: Evidence) -> None:
    evidence.jobs[0].films.pop()


def result_twice(evidence: Evidence) -> None:
    evidence.jobs[0].films.append(FILMS[1])


def damaged(evidence: Evidence) -> None:
    evidence.jobs[0].films[1] = replace(FILMS[1], flaw="InvalidDataError")


def too_short(evidence: Evidence) -> None:
    evidence.jobs[0].films[0] = replace(FILMS[0], frames=24)


def other_bytes(evidence: Evidence) -> None:
    evidence.jobs[1].films[0] = replace(FILMS[0], sha256="c")


def refused(evidence: Evidence) -> None:
    evidence.jobs.append(JobRecord(PLAN, 0, refusal="400"))


def still_busy(evidence: Evidence) -> None:
    evidence.busy_after = {"denoise": 1, "text": 0}


def charged_twice(evidence: Evidence) -> None:
    assert evidence.used is not None
    evidence.used[0]["videos"] += 3  # more than the deleted job's two


def not_charged(evidence: Evidence) -> None:
    assert evidence.used is not None
    evidence.used[0]["video_s"] -= 1


def overcharged(evidence: Evidence) -> None:
    assert evidence.used is not None
    evidence.used[0]["micro_usd"] += 120_000  # the deleted job's two and one more


def cost_untrue(evidence: Evidence) -> None:
    evidence.jobs[0].last["cost_usd"] = "0.04"


def webhook_missing(evidence: Evidence) -> None:
    assert evidence.receipts is not None
    evidence.receipts.pop(1)


def webhook_forged(evidence: Evidence) -> None:
    assert evidence.receipts is not None
    evidence.receipts.append(Receipt(0, 0, "d1", "", "", taken=True, flaw="No matching signature"))


def webhook_untrue(evidence: Evidence) -> None:
    assert evidence.receipts is not None
    evidence.receipts[2] = replace(evidence.receipts[2], kind="video.failed")


def webhook_doubled(evidence: Evidence) -> None:
    assert evidence.receipts is not None
    evidence.receipts[1] = replace(evidence.receipts[1], delivery="d9")


def webhook_astray(evidence: Evidence) -> None:
    assert evidence.receipts is not None
    evidence.receipts[2] = replace(evidence.receipts[2], tenant=1)


def ended_early(evidence: Evidence) -> None:
    evidence.jobs[0].log = LOG[:-1]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lost, "one: lost"),
        (listed_twice, "one: listed 2 times"),
        (listed_after_delete, "four: listed after its delete"),
        (foreign, "one: listed by tenant 1"),
        (unknown, "1 unknown jobs"),
        (changed_its_end, "one: listed as failed"),
        (never_ended, "one: lost: last seen in_progress"),
        (failed, "one: failed without being asked to: worker_lost"),
        (result_missing, "one: results of seeds [7] instead of [7, 8]"),
        (result_twice, "one: results of seeds [7, 8, 8]"),
        (damaged, "one: result 1 cannot be decoded"),
        (too_short, "one: result 0 has 24 frames"),
        (other_bytes, "2 different files (1 different videos) of equal requests: one, two"),
        (refused, "job 0: the create was refused"),
        (still_busy, "denoise: 1 stages wait"),
        (charged_twice, "tenant 0: the ledger has 7 videos, its jobs had 4 to 6"),
        (not_charged, "tenant 0: the ledger has 3 video_s, its jobs had 4 to 6"),
        (overcharged, "tenant 0: the ledger has 280000 micro_usd, its jobs had 160000 to 240000"),
        (cost_untrue, "one: says that it costs 0.04 USD, its 2 results cost 0.08"),
        (webhook_missing, "one: its webhook never came"),
        (webhook_forged, "a webhook does not verify"),
        (webhook_untrue, "two: its webhook says video.failed"),
        (webhook_doubled, "one: 2 different deliveries"),
        (webhook_astray, "two: its webhook went to another"),
        (ended_early, "one: its event log has terminal states at []"),
    ],
)
def test_each_harm_is_found_once(harm: Callable[[Evidence], None], words: str) -> None:
    evidence = healthy()
    harm(evidence)
    assert sum(words in violation for violation in judge(evidence)) == 1


def test_unknown_jobs_are_explained_by_lost_answers() -> None:
    evidence = healthy()
    unknown(evidence)
    evidence.lost_answers = 1
    assert judge(evidence) == []


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([], "begins with nothing"),
        (LOG[1:], "begins with stage"),
        ([LOG[0], *LOG[2:]], "gaps"),
        ([*LOG, (7, "state", {"state": "failed"})], r"terminal states at \[6, 7\]"),
        ([*LOG, (7, "phase", {"phase": "late"})], r"terminal states at \[6\]"),
        ([*LOG[:4], (5, "result", {"index": 0}), (6, "result", {"index": 0}), (7, *LOG[5][1:])], "publishes"),
        ([LOG[0], (2, *LOG[2][1:]), (3, *LOG[1][1:]), *LOG[3:]], "running at"),
    ],
)
def test_a_log_must_be_whole_and_in_order(log: list[tuple[int, str, dict[str, Any]]], words: str) -> None:
    assert not list(violations(LOG))
    assert re.search(words, " ".join(violations(log)))


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        ("completed", "in_progress", "left completed"),
        ("failed", "queued", "left failed"),
        ("in_progress", "queued", "went back to queued"),
    ],
)
def test_a_status_never_goes_back(first: str, then: str, words: str) -> None:
    record = JobRecord(PLAN, 0, "one")
    record.see(answer("one", first, progress=0))
    assert not record.oddities
    record.see(answer("one", then))
    assert words in record.oddities[0]


def test_progress_never_falls_and_a_claim_comes_first() -> None:
    record = JobRecord(PLAN, 0, "one")
    record.see(answer("one", "in_progress", stages=[{"state": "dispatched", "attempt": 0}]))
    assert record.oddities == ["in_progress before any worker had a stage"]
    record.see(answer("one", "in_progress", progress=40))
    record.see(answer("one", "in_progress", progress=39))
    assert record.oddities[1:] == ["progress fell from 40 to 39"]


def test_a_stream_is_read_as_it_is_sent() -> None:
    text = (
        'retry: 2000\n\nid: 1\nevent: created\ndata: {"state":"queued"}\n\n: keep-alive\n\n'
        'id: 2\nevent: state\ndata: {"state":"failed","message":"a: b"}\n\n'
    )
    log = parse(text)
    assert log == [(1, "created", {"state": "queued"}), (2, "state", {"state": "failed", "message": "a: b"})]
    assert not list(violations(log))
