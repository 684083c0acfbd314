"""The Scheduler's memory of hints: which references go along with which calls, and for how long.

A hint is a reference to a value's memory, made by the stage that produced it (`deployments.transport_ray`). Holding it
here is what keeps that memory, so each is dropped when the last stage that reads it is done or its job has ended.
Nothing depends on a hint: with an empty table every value is read from its durable copy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from cluster.graphs import NodeKey, StageGraph
from cluster.records import StageRef

R = TypeVar("R")
Hint: TypeAlias = Any  # only the transport that made it can read it
Hints: TypeAlias = Mapping[str, Hint]  # by handle key


@dataclass(frozen=True, slots=True)
class Ack:
    """A stage call's answer: what became of it, and hints for the values it made."""

    outcome: str  # "done", "not claimed", a verdict or a failure's code
    hints: Hints = field(default_factory=dict)  # inside a record, so that Ray sends references and no values
    nbytes: int = 0  # of the values behind the hints


@dataclass(slots=True)
class _Kept(Generic[R]):
    hints: Mapping[str, R]  # by handle key
    nbytes: int
    readers: set[NodeKey]  # stages that have still to read them


class HintTable(Generic[R]):
    """Hints by the stage that made them. `limit_nbytes` bounds the memory they keep: a long queue fills no store."""

    def __init__(self, *, limit_nbytes: int) -> None:
        self._limit = limit_nbytes
        self._jobs: dict[str, dict[NodeKey, _Kept[R]]] = {}
        self._nbytes = 0

    @property
    def jobs(self) -> Collection[str]:
        """The jobs of which hints are held."""
        return self._jobs.keys()

    @property
    def nbytes(self) -> int:
        """Memory kept by the hints held."""
        return self._nbytes

    def keep(self, producer: StageRef, graph: StageGraph, hints: Mapping[str, R], nbytes: int) -> None:
        """Holds a finished stage's hints for its readers; beyond the limit the new ones are not held."""
        made = producer.key
        readers = {node.key for node in graph.nodes if made in node.needs}
        if not hints or not readers or self._nbytes + nbytes > self._limit:
            return
        self._drop(producer.job_id, made)
        self._jobs.setdefault(producer.job_id, {})[made] = _Kept(dict(hints), nbytes, readers)
        self._nbytes += nbytes

    def of(self, reader: StageRef) -> dict[str, R]:
        """The hints for a stage's inputs."""
        kept = self._jobs.get(reader.job_id, {}).values()
        return {key: hint for one in kept if reader.key in one.readers for key, hint in one.hints.items()}

    def done(self, reader: StageRef) -> None:
        """The stage has read its inputs for the last time."""
        for made, kept in list(self._jobs.get(reader.job_id, {}).items()):
            kept.readers.discard(reader.key)
            if not kept.readers:
                self._drop(reader.job_id, made)

    def ended(self, job_id: str) -> None:
        """The job has ended."""
        for made in list(self._jobs.get(job_id, {})):
            self._drop(job_id, made)

    def clear(self) -> None:
        """Another Scheduler leads."""
        for job_id in list(self._jobs):
            self.ended(job_id)

    def _drop(self, job_id: str, made: NodeKey) -> None:
        of_job = self._jobs.get(job_id, {})
        kept = of_job.pop(made, None)
        if kept is not None:
            self._nbytes -= kept.nbytes
            if not of_job:
                del self._jobs[job_id]
