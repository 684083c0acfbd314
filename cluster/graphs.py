"""Stage graphs: which stages a job has, what flows between them, which are ready.

A graph is an unrolled DAG. Two things repeat its stages:

- *Chunks* of one video (extension rolls, avatar windows) follow each other: nodes with rising `chunk` and an edge from
  chunk k to k + 1. They are part of a graph's definition.
- *Results* of one job lie side by side: `unroll` repeats what depends on a seed, all its chunks and the edges between
  them, once per result. What comes before stays single and feeds them all; no edge leads from one result to another.

Ports are typed by the value's name, and building a graph checks every edge, so a wrong wiring is an error where the
graph is made, not in a job. A graph's name tells its kind and its number of chunks ("extend/6"), so whoever reads the
name from a job can build it again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

NodeKey = tuple[str, int, int]  # (stage, result, chunk)


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input port's value comes from."""

    stage: str
    chunk: int
    port: str
    result: int = 0

    @property
    def key(self) -> NodeKey:
        return self.stage, self.result, self.chunk


@dataclass(frozen=True, slots=True)
class StageNode:
    """One stage of one chunk of one result, or of all results. `weight` is its rough share of the job's time, for
    progress only; `seeded` stages draw random numbers, or write a part of their result's file.
    """

    stage: str
    chunk: int
    outputs: Mapping[str, str]  # port → value type
    inputs: Mapping[str, Source] = field(default_factory=dict)
    accepts: Mapping[str, str] = field(default_factory=dict)  # port → value type
    weight: float = 1.0
    seeded: bool = False
    result: int = 0

    @property
    def key(self) -> NodeKey:
        return self.stage, self.result, self.chunk

    @property
    def needs(self) -> frozenset[NodeKey]:
        return frozenset(source.key for source in self.inputs.values())


@dataclass(frozen=True, slots=True)
class StageGraph:
    """A checked graph; `final` names the port whose Artifact is the first result, and stands for the same port of all
    `results`.
    """

    name: str
    nodes: tuple[StageNode, ...]
    final: Source
    results: int = 1

    def __post_init__(self) -> None:
        seen: dict[NodeKey, StageNode] = {}
        for node in self.nodes:
            if node.key in seen:
                raise ValueError(f"{self.name}: stage {node.key} appears twice")
            if node.inputs.keys() != node.accepts.keys():
                raise ValueError(f"{self.name}: {node.key} wires {set(node.inputs)} but accepts {set(node.accepts)}")
            for port, source in node.inputs.items():
                producer = seen.get(source.key)
                if producer is None:
                    raise ValueError(f"{self.name}: {node.key}.{port} reads {source}, which does not come before it")
                if producer.outputs.get(source.port) != node.accepts[port]:
                    raise ValueError(f"{self.name}: {node.key}.{port} wants {node.accepts[port]}, {source} is another")
            seen[node.key] = node
        for key in self.finals:
            if key not in seen or seen[key].outputs.get(self.final.port) != "Artifact":
                raise ValueError(f"{self.name}: the final port {self.final.port} of {key} is not an Artifact")

    @property
    def stages(self) -> frozenset[str]:
        return frozenset(node.stage for node in self.nodes)

    @property
    def finals(self) -> tuple[NodeKey, ...]:
        """The node that makes each result, in their order."""
        return tuple(replace(self.final, result=result).key for result in range(self.results))

    def ready(self, done: Collection[NodeKey]) -> tuple[StageNode, ...]:
        """The nodes whose inputs all exist and that are not done themselves."""
        return tuple(node for node in self.nodes if node.key not in done and node.needs <= set(done))


def unroll(single: StageGraph, results: int) -> StageGraph:
    """The graph of a job with this many results, from that of one.

    Raises:
        ValueError: fewer than one result, `single` is unrolled already, or its final stage does not depend on a seed.
    """
    if results < 1 or single.results != 1:
        raise ValueError(f"{single.name}: cannot be unrolled from {single.results} to {results} results")
    repeated: set[NodeKey] = set()
    for node in single.nodes:
        if node.seeded or node.needs & repeated:
            repeated.add(node.key)

    def of_result(node: StageNode, result: int) -> StageNode:
        inputs = {
            port: replace(source, result=result) if source.key in repeated else source
            for port, source in node.inputs.items()
        }
        return replace(node, inputs=inputs, result=result)

    shared = tuple(node for node in single.nodes if node.key not in repeated)
    own = tuple(of_result(node, result) for result in range(results) for node in single.nodes if node.key in repeated)
    return replace(single, nodes=shared + own, results=results)
