import gc
import weakref
from dataclasses import replace

import pytest

from cluster.graphs import Source, StageGraph, StageNode
from cluster.records import StageRef
from cluster.wiring import graph
from deployments.hints import HintTable

TEXT, CONDITION, DENOISE, DECODE = (StageRef("job", name) for name in ("text", "condition", "denoise", "decode"))
GRAPH = graph("r2v", 1)
CONTEXT = {"inputs": {"context": Source("text", 0, "context")}, "accepts": {"context": "TextContext"}}
LATENTS = {"inputs": {"latents": Source("denoise", 1, "latents")}, "accepts": {"latents": "Latents"}}
FORK = StageGraph(
    "fork",
    (
        StageNode("text", 0, {"context": "TextContext"}),
        StageNode("denoise", 0, {"latents": "Latents"}, **CONTEXT),
        StageNode("denoise", 1, {"latents": "Latents"}, **CONTEXT),
        StageNode("decode", 0, {"video": "Artifact"}, **LATENTS),
    ),
    Source("decode", 0, "video"),
)


class Ref:
    pass


@pytest.fixture
def table():
    return HintTable(limit_nbytes=100)


def test_hints_go_to_the_readers_of_a_value(table):
    table.keep(TEXT, GRAPH, {"t": "text"}, 10)
    table.keep(CONDITION, GRAPH, {"c": "condition"}, 20)
    assert table.of(DENOISE) == {"t": "text", "c": "condition"}
    assert table.of(DECODE) == table.of(TEXT) == table.of(StageRef("another", "denoise")) == {}
    assert (table.nbytes, set(table.jobs)) == (30, {"job"})


def test_a_call_sent_again_gets_them_again(table):
    table.keep(TEXT, GRAPH, {"t": "text"}, 10)
    assert table.of(DENOISE) == table.of(DENOISE) == {"t": "text"}


def test_dropped_when_the_last_reader_is_done(table):
    table.keep(TEXT, FORK, {"t": "text"}, 10)
    table.done(StageRef("job", "denoise", 1))
    assert table.of(StageRef("job", "denoise", 0)) == {"t": "text"}
    assert table.of(StageRef("job", "denoise", 1)) == {}
    table.done(StageRef("job", "denoise", 0))
    assert (table.nbytes, set(table.jobs)) == (0, set())


def test_kept_until_every_result_has_read_it(table):
    two = graph("r2v", 2)
    table.keep(TEXT, two, {"t": "text"}, 10)
    table.done(DENOISE)
    assert table.of(DENOISE) == {}
    assert table.of(replace(DENOISE, result=1)) == {"t": "text"}
    table.keep(replace(DENOISE, result=1), two, {"l": "latents"}, 20)
    assert (table.of(DECODE), table.of(replace(DECODE, result=1))) == ({}, {"l": "latents"})
    table.done(replace(DENOISE, result=1))
    assert table.nbytes == 20


def test_dropped_with_the_job(table):
    table.keep(TEXT, GRAPH, {"t": "text"}, 10)
    table.keep(StageRef("other", "text"), GRAPH, {"o": "other"}, 10)
    table.ended("job")
    table.ended("never seen")
    assert table.of(DENOISE) == {}
    assert (table.nbytes, set(table.jobs)) == (10, {"other"})
    table.clear()
    assert (table.nbytes, set(table.jobs)) == (0, set())


@pytest.mark.parametrize("end", ["done", "ended", "clear", "replaced"])
def test_nothing_else_holds_a_hint(table, end):
    """The reference itself must go: it is what keeps the memory."""
    ref = Ref()
    gone = weakref.ref(ref)
    table.keep(TEXT, GRAPH, {"t": ref}, 10)
    del ref
    if end == "done":
        table.done(DENOISE)
    elif end == "ended":
        table.ended("job")
    elif end == "clear":
        table.clear()
    else:
        table.keep(TEXT, GRAPH, {"t": Ref()}, 30)
        assert table.nbytes == 30
    gc.collect()
    assert gone() is None


def test_values_nobody_reads_are_not_held(table):
    table.keep(DECODE, GRAPH, {"video": "a file"}, 10)
    table.keep(TEXT, GRAPH, {}, 10)
    assert (table.nbytes, set(table.jobs)) == (0, set())


def test_beyond_the_limit_the_older_stay(table):
    table.keep(TEXT, GRAPH, {"t": "text"}, 60)
    table.keep(CONDITION, GRAPH, {"c": "condition"}, 50)
    assert table.of(DENOISE) == {"t": "text"}
    table.keep(CONDITION, GRAPH, {"c": "condition"}, 40)
    assert table.of(DENOISE) == {"t": "text", "c": "condition"}
    table.done(DENOISE)
    table.keep(CONDITION, GRAPH, {"c": "condition"}, 100)
    assert table.of(DENOISE) == {"c": "condition"}
