"""The report of a run: one JSON with everything, one page of Markdown to read."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.chaos.evidence import Evidence, Hurt, JobRecord
from loadtest.chaos.scenario import Fault


@dataclass(frozen=True, slots=True)
class Report:
    """What happened and what it means."""

    manifest: Mapping[str, Any]
    counts: Mapping[str, int]
    answers: Mapping[str, int]  # HTTP statuses and transport errors
    hurts: Sequence[Hurt]
    violations: Sequence[str]
    unchecked: Sequence[str]
    seconds: float  # of the whole run
    job_seconds: Sequence[float]  # create to end, of each job that was followed
    jobs: Sequence[JobRecord]

    @property
    def passed(self) -> bool:
        return not self.violations

    def recoveries(self) -> dict[tuple[str, str], list[float | None]]:
        """Seconds until whole again, by kind and signal; None = not seen to its end."""
        found: defaultdict[tuple[str, str], list[float | None]] = defaultdict(list)
        for hurt in self.hurts:
            found[hurt.kind, hurt.signal].append(hurt.whole_after_s)
        return dict(found)

    def markdown(self) -> str:
        """The page."""
        machine = ", ".join(f"{name}: {value}" for name, value in self.manifest.items())
        lines = [f"# Chaos: {'passed' if self.passed else f'{len(self.violations)} violations'}", "", machine, ""]
        lines += [f"{self.seconds:.0f} s. {_spread('A job took', self.job_seconds)}", ""]
        lines += _table(("what", "count"), self.counts.items())
        lines += _table(("answer", "count"), sorted(self.answers.items()))
        rows = []
        for (kind, signal), times in sorted(self.recoveries().items()):
            seen = [value for value in times if value is not None]
            rows.append((kind, signal, len(times), _spread("", seen) or "–"))
        lines += _table(("hurt", "by", "times", "until whole, s"), rows)
        lines += ["## Violations", "", *(f"- {sentence}" for sentence in self.violations or ("none",)), ""]
        lines += ["## Not checked", "", *(f"- {sentence}" for sentence in self.unchecked or ("nothing",)), ""]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """`chaos.json` and `chaos.md`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "chaos.json").write_text(json.dumps(asdict(self) | {"passed": self.passed}, indent=2))
        (folder / "chaos.md").write_text(self.markdown())


def counts(evidence: Evidence) -> dict[str, int]:
    """How many of what."""
    jobs = evidence.jobs
    return {
        "jobs": len(jobs),
        "refused": sum(record.refusal is not None for record in jobs),
        **{f"ended {status}": n for status, n in Counter(r.status for r in jobs if not r.deleted).items()},
        "cancelled": sum(record.stopped for record in jobs),
        "deleted": sum(record.deleted for record in jobs),
        "results decoded": sum(len(record.films) for record in jobs),
        "answers of creates lost": evidence.lost_answers,
        "stage attempts over the first": sum(record.last.get("attempts", 0) for record in jobs),
        "killed": sum(hurt.signal == "SIGKILL" for hurt in evidence.hurts),
        "frozen": sum(hurt.signal == "SIGSTOP" for hurt in evidence.hurts),
        "drained": sum(hurt.signal == Fault.DRAIN for hurt in evidence.hurts),
        "outages of the job store": sum(hurt.signal == Fault.OUTAGE for hurt in evidence.hurts),
    }


def _table(head: Sequence[str], rows: Any) -> list[str]:
    body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body, ""]


def _spread(what: str, values: Sequence[float]) -> str:
    """Median with minimum and maximum."""
    if not values:
        return ""
    return f"{what} {statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})".strip()
