"""A job's event log, as its stream of Server-Sent Events gives it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cluster.records import TERMINAL_STATES, JobState, StageState

Log = list[tuple[int, str, dict[str, Any]]]  # number, type, data


def parse(text: str) -> Log:
    """The events of a stream that has ended."""
    log: Log = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            log.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return log


def violations(log: Log) -> Iterator[str]:
    """What is wrong with the whole log of an ended job."""
    numbers = [seq for seq, _, _ in log]
    if numbers != list(range(1, len(log) + 1)):
        yield f"its event log has gaps: {numbers}"
    if not log or log[0][1] != "created":
        yield f"its event log begins with {log[0][1] if log else 'nothing'}"
    ends = [seq for seq, kind, data in log if kind == "state" and data["state"] in TERMINAL_STATES]
    if ends != numbers[-1:]:
        yield f"its event log has terminal states at {ends} of {len(log)}"
    claims = [seq for seq, kind, data in log if kind == "stage" and data["state"] == StageState.CLAIMED]
    runs = [seq for seq, kind, data in log if kind == "state" and data["state"] == JobState.RUNNING]
    if len(runs) > 1 or (runs and not (claims and claims[0] < runs[0])):
        yield f"its event log says running at {runs}, claimed at {claims}"
    results = [data["index"] for _, kind, data in log if kind == "result"]
    if len(set(results)) < len(results):
        yield f"its event log publishes results {results}"
