from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import wiring
from cluster.graphs import NodeKey, Source, StageGraph, StageNode, unroll
from cluster.registry import MODELS
from cluster.wiring import KINDS

R2V = wiring.graph("r2v", 1)


def node(stage: str, chunk: int = 0, *, kind: str = "V", **inputs: tuple[str, int]) -> StageNode:
    """A stage with one output port "out" and one input per named source."""
    sources = {port: Source(*source, "out") for port, source in inputs.items()}
    return StageNode(stage, chunk, {"out": kind}, sources, dict.fromkeys(sources, "V"))


def last(stage: str = "last", chunk: int = 0, **inputs: tuple[str, int]) -> StageNode:
    return node(stage, chunk, kind="Artifact", **inputs)


def graph(*nodes: StageNode, final: Source | None = None) -> StageGraph:
    return StageGraph("g", nodes, final or Source(nodes[-1].stage, nodes[-1].chunk, "out"))


def test_r2v_encodes_side_by_side_then_denoises_then_decodes() -> None:
    def names(*done: str) -> set[str]:
        return {item.stage for item in R2V.ready([(stage, 0, 0) for stage in done])}

    assert names() == {"text", "condition"}
    assert names("text") == {"condition"}
    assert names("text", "condition") == {"denoise"}
    assert names("text", "condition", "denoise") == {"decode"}
    assert names("text", "condition", "denoise", "decode") == set()
    assert sum(item.weight for item in R2V.nodes) == pytest.approx(1.0)


def test_every_model_names_a_graph() -> None:
    assert {model.graph for model in MODELS.values()} <= KINDS.keys()


@given(st.data())
def test_any_order_of_finishing_reaches_every_stage_once(data: st.DataObject) -> None:
    chunks = data.draw(st.integers(1, 5))
    rolls = [node("roll", 0, text=("text", 0))]
    rolls += [node("roll", chunk, text=("text", 0), last=("roll", chunk - 1)) for chunk in range(1, chunks)]
    whole = graph(node("text"), *rolls, last(video=("roll", chunks - 1)))
    done: list[NodeKey] = []
    while ready := whole.ready(done):
        chosen = data.draw(st.sampled_from(ready))
        assert chosen.needs <= set(done)
        done.append(chosen.key)
    assert sorted(done) == sorted(item.key for item in whole.nodes)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((node("a"), node("a"), last()), "twice"),
        ((last(x=("a", 0)), node("a")), "does not come before"),
        ((node("a", x=("a", 0)), last()), "does not come before"),
        ((node("a", kind="W"), last(x=("a", 0))), "wants V"),
        ((StageNode("a", 0, {"out": "V"}, accepts={"x": "V"}), last()), "accepts"),
        ((node("a"),), "not an Artifact"),
    ],
)
def test_a_wrong_wiring_is_refused(nodes: tuple[StageNode, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph(*nodes)


def test_the_final_port_must_exist() -> None:
    with pytest.raises(ValueError, match="final"):
        graph(node("a"), final=Source("b", 0, "out"))


def rolls(chunks: int) -> StageGraph:
    """A shared text, a chain of seeded rolls that each read it, and a file of the last."""
    text = node("text")
    first = replace(node("roll", 0, text=("text", 0)), seeded=True)
    rest = [replace(node("roll", k, text=("text", 0), last=("roll", k - 1)), seeded=True) for k in range(1, chunks)]
    return graph(text, first, *rest, last(video=("roll", chunks - 1)))


@given(st.integers(1, 4), st.integers(1, 4))
def test_results_repeat_what_depends_on_a_seed_chunk_by_chunk(results: int, chunks: int) -> None:
    whole = unroll(rolls(chunks), results)
    keys = {item.key: item for item in whole.nodes}
    assert len(keys) == 1 + results * (chunks + 1)
    assert whole.finals == tuple(("last", result, 0) for result in range(results))
    for result in range(results):
        for chunk in range(chunks):
            before = {("roll", result, chunk - 1)} if chunk else set()
            assert keys["roll", result, chunk].needs == {("text", 0, 0)} | before
        assert keys["last", result, 0].needs == {("roll", result, chunks - 1)}
    assert unroll(rolls(chunks), 1).nodes == rolls(chunks).nodes


def test_only_what_depends_on_a_seed_has_results() -> None:
    with pytest.raises(ValueError, match="final"):
        unroll(graph(node("a"), last(x=("a", 0))), 2)
    with pytest.raises(ValueError, match="unrolled"):
        unroll(R2V, 0)
    with pytest.raises(ValueError, match="unrolled"):
        unroll(wiring.graph("r2v", 2), 2)
