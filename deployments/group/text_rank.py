"""One process's part of a group that shares text encoders: its part of every layer (`components.text_deepspeed`).

Every rank encodes the same prompts and gets the whole result; rank 0 writes it. The encoders of all served models are
loaded at once, when the first is asked for, and stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.config import Config
from cluster.pools import Pool
from cluster.records import Request
from cluster.wiring import PROMPT
from components.values import PromptText, Value
from deployments.group import commands
from deployments.group.commands import Command, Done
from deployments.group.member import Member
from deployments.text_encoders import Encoder, encoded, load_encoders
from deployments.weights import resolve


@dataclass(slots=True)
class _Run:
    request: Request
    prompt: str  # what is encoded
    values: Mapping[str, Value] = field(default_factory=dict)


class TextMember(Member):
    """See `Member`."""

    def __init__(self, config: Config, pool: Pool, rank: int) -> None:
        """As `Member`."""
        super().__init__(config, pool, rank)
        self._encoders: dict[str, Encoder] = {}  # by model
        self._runs: dict[str, _Run] = {}

    def _carry_out(self, command: Command) -> Done:
        match command:
            case commands.Load() if not self._encoders:
                self._encoders = load_encoders(resolve(self._config, self._pool))
            case commands.Prepare(job, work, hints):
                extended = self._open(work.inputs[PROMPT], hints, PromptText) if PROMPT in work.inputs else None
                self._runs[job] = _Run(work.request, work.request.prompt if extended is None else extended.text)
            case commands.Step(job):
                run = self._runs[job]
                with self._together():
                    run.values = encoded(self._encoders[run.request.model], run.request, run.prompt)
                return Done(1)
            case commands.Finish(job, key):
                return self._write(1, key, self._runs[job].values)
            case commands.Drop(job):
                self._runs.pop(job, None)
            case commands.Snapshot(job, _):
                raise TypeError(f"{job} encodes text, where nothing is saved")
        return Done()
