"""The span of each run on a rank, from its preparation to its end, under the span of its stage's call."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.records import StageCall
from deployments.group import commands
from deployments.group.commands import Command, Failed, Outcome
from deployments.tracing import Tracer, now_ns


@dataclass(slots=True)
class _Run:
    call: StageCall
    began_ns: int
    spent_s: dict[str, float] = field(default_factory=dict)
    steps: int = 0


class RankSpans:
    """What a rank notes of its runs while tracing is on."""

    def __init__(self, tracer: Tracer, rank: int) -> None:
        self._tracer = tracer
        self._rank = rank
        self._runs: dict[str, _Run] = {}

    def carried_out(self, command: Command, outcome: Outcome, seconds: float) -> None:
        """One command has ended, well or not."""
        if not self._tracer.on or isinstance(command, commands.Load):
            return
        if isinstance(command, commands.Prepare):
            self._runs[command.job] = _Run(command.work.call, now_ns() - int(seconds * 1e9))
        run = self._runs.get(command.job)
        if run is None:
            return
        part = f"{type(command).__name__.lower()}_s"
        run.spent_s[part] = run.spent_s.get(part, 0.0) + seconds
        run.steps += isinstance(command, commands.Step)
        error = outcome.code if isinstance(outcome, Failed) else None
        if error is not None or isinstance(command, commands.Finish | commands.Drop):
            self._end(command.job, run, error)

    def _end(self, job: str, run: _Run, error: str | None) -> None:
        del self._runs[job]
        stage = run.call.ref.stage
        self._tracer.span(
            run.call.trace,
            f"{run.call.span}/rank-{self._rank}/{run.began_ns}",
            f"{stage} on rank {self._rank}",
            run.began_ns,
            parent=run.call.span,
            error=error,
            attributes={**run.call.ref.named, "rank": self._rank, "steps": run.steps, **run.spent_s},
        )

    def close(self) -> None:
        """Sends what is queued."""
        self._tracer.close()
