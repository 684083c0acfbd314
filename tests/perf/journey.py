"""Where a job's time goes, from its creation to the commit of its end, in named parts: nothing is left unnamed but the
residual.

All times are the system's own: the moments in its store's rows and the laps in its log, of one clock on one machine.
The parts lie one after the other on the longest path: the later of text and condition, then denoise, then decode.

    create    the commit of the job
    wake      until the Scheduler looks: at the door the Api's call, later the ack
    plan, dispatch, claim, complete    the job store's part of every hand-over; the last complete ends the job
    call      the way to the replica
    get       receiving a stage's inputs (the denoiser: and building its run on every rank)
    compute   the components: the same work on the same ranks would take as long without this system
    segments  waiting for the encoder beside the decoder
    put       writing a stage's value durably
    file      the video out of its segments, and where the pictures lie
    publish   from the last stage's end to the job's
    residual  what none of these explains: threads, scratch folders, the loop between two steps
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.integration.system import System

Split = dict[str, float]  # seconds by part
PARTS = (
    "create", "wake", "plan", "dispatch", "call", "claim", "get", "compute", "segments", "put", "file", "complete",
    "publish", "residual",
)  # fmt: skip
_FIRST = ("text", "condition")
_COLUMNS = ("ready_at", "dispatched_at", "claimed_at", "done_at")


def log_lines(system: System, message: str) -> Iterator[dict[str, Any]]:
    """The structured lines of all replicas with this message."""
    session = next(
        match.group(1)
        for process in system.members()
        if (match := re.search(r"(/\S*/session_[0-9_-]+)/", " ".join(process.cmdline())))
    )
    for path in Path(session, "logs").glob("worker-*.err"):
        for line in path.read_text(errors="replace").splitlines():
            if f'"message": "{message}"' in line:
                yield json.loads(line)


def moments(system: System, job_id: str) -> dict[str, dict[str, datetime]]:
    """When each stage was ready, dispatched, claimed and done."""
    rows = _query(system, f"SELECT stage, {', '.join(_COLUMNS)} FROM stages WHERE job_id = ?", job_id)
    return {
        stage: {name: datetime.fromisoformat(at) for name, at in zip(_COLUMNS, times, strict=True)}
        for stage, *times in rows
    }


def journeys(system: System, jobs: Sequence[str]) -> list[Split]:
    """The parts of each job, in seconds, and their sum as `total`."""
    worked = {(line["job"], line["stage"]): line for line in log_lines(system, "stage ended")}
    planned = {call: line for line in log_lines(system, "dispatched") for call in line["calls"]}
    created = {line["job"]: line["create_s"] for line in log_lines(system, "accepted")}
    return [_journey(system, job, worked, planned, created[job]) for job in jobs]


def _journey(
    system: System,
    job: str,
    worked: Mapping[tuple[str, str], Mapping[str, float]],
    planned: Mapping[str, Mapping[str, float]],
    create_s: float,
) -> Split:
    ((created, finished),) = _query(system, "SELECT created_at, finished_at FROM jobs WHERE id = ?", job)
    at = moments(system, job)
    path = (max(_FIRST, key=lambda stage: at[stage]["done_at"]), "denoise", "decode")
    split = dict.fromkeys(PARTS, 0.0)
    split["create"] = create_s
    before_s = create_s  # what the transaction that made the stage ready still took
    for stage in path:
        made, plan = worked[job, stage], planned[f"{job}/{stage}/0"]
        waited_s = _seconds(at[stage]["dispatched_at"] - at[stage]["ready_at"])
        called_s = _seconds(at[stage]["claimed_at"] - at[stage]["dispatched_at"])
        got_s = made.get("get_s", 0.0) + made.get("prepare_s", 0.0)
        put_s = made.get("put_s", 0.0) + made.get("finish_s", 0.0)
        # The ranks of a group prepare and finish under the lease's clock, too.
        compute_s = made["busy_s"] - made.get("prepare_s", 0.0) - made.get("finish_s", 0.0)
        parts = {
            "wake": waited_s - before_s - plan["plan_s"],
            "plan": plan["plan_s"],
            "dispatch": plan["dispatch_s"],
            "call": called_s - plan["dispatch_s"],
            "claim": made["claim_s"],
            "get": got_s,
            "compute": compute_s,
            "segments": made.get("segments_s", 0.0),
            "put": put_s,
            "file": made.get("file_s", 0.0),
            "complete": made["complete_s"],
        }
        for part, seconds in parts.items():
            split[part] += seconds
        before_s = made["complete_s"]
    done = at[path[-1]]["done_at"]
    split["publish"] = max(0.0, _seconds(datetime.fromisoformat(finished) - done) - before_s)
    total_s = _seconds(done - datetime.fromisoformat(created)) + before_s + split["publish"]
    split["residual"] = total_s - sum(split.values())
    return split | {"total": total_s}


def _seconds(span: timedelta) -> float:
    return span.total_seconds()


def _query(system: System, statement: str, job_id: str) -> list[Any]:
    with sqlite3.connect(system.folder / "state" / "jobs.db") as database:
        return database.execute(statement, (job_id,)).fetchall()
