"""The graphs of the served models: what is wired to what, for so many chunks.

A *roll* or *window* denoises a chunk, decodes it, and hands its last frames to the next. Every chunk's decode adds its
stored segments to a list (`part`) that the last one makes the file of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from cluster.chains import forced, source_frames
from cluster.graphs import Source, StageGraph, StageNode, unroll
from cluster.plans import extension_rolls
from cluster.records import Request
from cluster.registry import Model
from cluster.windows import windows

_TEXT, _CONDITION, _DENOISE, _DECODE = 0.02, 0.03, 0.80, 0.15  # rough shares of a job's time
_WITH_SOURCE = "+source"
_WITH_PROMPT = "+prompt"
PROMPT = "prompt"  # the stage that any graph may have: it extends the prompt before the stage `text` encodes it


def _node(stage: str, chunk: int, weight: float, inputs: Mapping[str, tuple[str, Source]], **outputs: str) -> StageNode:
    """`inputs` by port: the value's type and where it comes from."""
    return StageNode(
        stage,
        chunk,
        outputs=outputs,
        inputs={port: source for port, (_, source) in inputs.items()},
        accepts={port: kind for port, (kind, _) in inputs.items()},
        weight=weight,
        seeded=stage in {"denoise", "source"},
    )


def _text(*ports: str) -> StageNode:
    return _node("text", 0, _TEXT, {}, **dict.fromkeys(ports, "TextContext"))


def _single(name: str, condition: str) -> StageGraph:
    """One chunk: text and condition encode side by side, then each result is denoised and decoded."""
    context = {"context": ("TextContext", Source("text", 0, "context"))}
    nodes = (
        _text("context"),
        _node("condition", 0, _CONDITION, {}, condition=condition),
        _node(
            "denoise",
            0,
            _DENOISE,
            context | {"condition": (condition, Source("condition", 0, "condition"))},
            latents="Latents",
        ),
        _node("decode", 0, _DECODE, {"latents": ("Latents", Source("denoise", 0, "latents"))}, video="Artifact"),
    )
    return StageGraph(name, nodes, Source("decode", 0, "video"))


def _v1(name: str, condition: str | None) -> StageGraph:
    """One chunk, as `_single`, with the context of SkyReels V1 and perhaps no condition."""
    inputs = {"context": ("PooledContext", Source("text", 0, "context"))}
    nodes = [_node("text", 0, _TEXT, {}, context="PooledContext")]
    if condition is not None:
        inputs["condition"] = (condition, Source("condition", 0, "condition"))
        nodes.append(_node("condition", 0, _CONDITION, {}, condition=condition))
    nodes += [
        _node("denoise", 0, _DENOISE, inputs, latents="Latents"),
        _node("decode", 0, _DECODE, {"latents": ("Latents", Source("denoise", 0, "latents"))}, video="Artifact"),
    ]
    return StageGraph(name, tuple(nodes), Source("decode", 0, "video"))


def _decode(chunk: int, last: bool, weight: float, before: Source | None, tail: str) -> StageNode:
    """A chunk's decode: behind the parts of the chunks before it, and handing on unless it is the last."""
    inputs = {"latents": ("Latents", Source("denoise", chunk, "latents"))}
    if before is not None:
        inputs["before"] = ("Part", before)
    outputs = {"video": "Artifact"} if last else {"part": "Part", "tail": tail}
    return _node("decode", chunk, weight, inputs, **outputs)


def extend_graph(count: int, with_source: bool = False) -> StageGraph:
    """Rolls 1 … count; chunk 0 is the source, where it comes first in the file."""
    return StageGraph(
        f"extend/{count}{_WITH_SOURCE if with_source else ''}",
        tuple(_rolls(count, with_source)),
        Source("decode", count, "video"),
    )


def _rolls(count: int, with_source: bool) -> Iterator[StageNode]:
    yield _text("context")
    if with_source:
        yield _node("source", 0, _TEXT, {}, part="Part")
    for roll in range(1, count + 1):
        tail = {} if roll == 1 else {"tail": ("Frames", Source("decode", roll - 1, "tail"))}
        yield _node("condition", roll, _CONDITION / count, tail, condition="PrefixCondition")
        yield _node(
            "denoise",
            roll,
            _DENOISE / count,
            {
                "context": ("TextContext", Source("text", 0, "context")),
                "condition": ("PrefixCondition", Source("condition", roll, "condition")),
            },
            latents="Latents",
        )
        before = Source("decode", roll - 1, "part") if roll > 1 else Source("source", 0, "part")
        known = roll > 1 or with_source
        yield _decode(roll, roll == count, _DECODE / count, before if known else None, "Frames")


def avatar_graph(count: int) -> StageGraph:
    """Chunk 0 is the key-frame pass; windows 1 … count, none where the first pass is all."""
    return StageGraph(f"avatar/{count}", tuple(_windows(count)), Source("decode", count, "video"))


def _windows(count: int) -> Iterator[StageNode]:
    share = 1 / (count + 1)
    yield _text("context", "connection")
    yield _node("audio", 0, _TEXT, {}, audio="AudioFeatures")
    for window in range(count + 1):
        tail = {"tail": ("Pixels", Source("decode", window - 1, "tail"))} if window > 1 else {}
        key = {"key": ("Pixels", Source("decode", 0, f"key{window}"))} if window else {}
        if window != 1:  # the first window begins with the portrait, as the pass before it
            yield _node("vision", window, _TEXT * share, tail, image="ImageTokens")
        sound = {"audio": ("AudioFeatures", Source("audio", 0, "audio"))}
        known = {"condition": "KnownFrames", "audio": "AudioWindow"} | ({} if window else {"regions": "Regions"})
        yield _node("condition", window, _CONDITION * share, tail | key | sound, **known)
        inputs = {
            "context": ("TextContext", Source("text", 0, "connection" if window else "context")),
            "audio": ("AudioWindow", Source("condition", window, "audio")),
            "image": ("ImageTokens", Source("vision", 0 if window == 1 else window, "image")),
            "condition": ("KnownFrames", Source("condition", window, "condition")),
            "regions": ("Regions", Source("condition", 0, "regions")),
        }
        if window:
            inputs["random"] = ("RandomState", Source("denoise", window - 1, "random"))
        yield _node("denoise", window, _DENOISE * share, inputs, latents="Latents", random="RandomState")
        if count and not window:
            keys = {f"key{number}": "Pixels" for number in range(1, count + 1)}
            latents = {"latents": ("Latents", Source("denoise", 0, "latents"))}
            yield _node("decode", 0, _DECODE * share, latents, **keys)
        else:
            before = Source("decode", window - 1, "part") if window > 1 else None
            yield _decode(window, window == count, _DECODE * share, before, "Pixels")


def with_prompt(graph: StageGraph) -> StageGraph:
    """The graph whose prompt is extended first."""
    prompt = _node(PROMPT, 0, _TEXT, {}, prompt="PromptText")
    source = {PROMPT: Source(PROMPT, 0, "prompt")}
    nodes = (
        replace(node, inputs={**node.inputs, **source}, accepts={**node.accepts, PROMPT: "PromptText"})
        if node.stage == "text"
        else node
        for node in graph.nodes
    )
    return replace(graph, name=graph.name + _WITH_PROMPT, nodes=(prompt, *nodes))


def forcing_graph(count: int, with_source: bool = False) -> StageGraph:
    """Chunks 1 … count; chunk 0 is the source, where it comes first in the file."""
    name = f"df/{count}{_WITH_SOURCE if with_source else ''}"
    return StageGraph(name, tuple(_chunks(count, with_source)), Source("decode", count, "video"))


def _chunks(count: int, with_source: bool) -> Iterator[StageNode]:
    yield _text("context")
    if with_source:
        yield _node("source", 0, _TEXT, {}, part="Part")
    for chunk in range(1, count + 1):
        tail = {} if chunk == 1 else {"tail": ("Pixels", Source("decode", chunk - 1, "tail"))}
        yield _node("condition", chunk, _CONDITION / count, tail, condition="EndsCondition")
        inputs = {
            "context": ("TextContext", Source("text", 0, "context")),
            "condition": ("EndsCondition", Source("condition", chunk, "condition")),
        }
        if chunk > 1:
            inputs["random"] = ("RandomState", Source("denoise", chunk - 1, "random"))
        yield _node("denoise", chunk, _DENOISE / count, inputs, latents="Latents", random="RandomState")
        before = Source("decode", chunk - 1, "part") if chunk > 1 else Source("source", 0, "part")
        yield _decode(chunk, chunk == count, _DECODE / count, before if chunk > 1 or with_source else None, "Pixels")


def _clip(name: str, **known: str) -> StageGraph:
    """One chunk from text, and from what a stage each makes of an image: stage → value."""
    inputs = {"context": ("TextContext", Source("text", 0, "context"))}
    nodes = [_text("context")]
    for stage, kind in known.items():
        port = _PORTS[stage]
        nodes.append(_node(stage, 0, _CONDITION, {}, **{port: kind}))
        inputs[port] = (kind, Source(stage, 0, port))
    nodes.append(_node("denoise", 0, _DENOISE, inputs, latents="Latents"))
    nodes.append(_decode(0, True, _DECODE, None, ""))
    return StageGraph(name, tuple(nodes), Source("decode", 0, "video"))


_PORTS = {"condition": "condition", "vision": "image"}
_T2V, _I2V = _clip("t2v"), _clip("i2v", condition="KnownFrames", vision="ImageTokens")

KINDS: Mapping[str, Callable[[int, bool], StageGraph]] = {
    "r2v": lambda count, source: _single("r2v", "Condition"),
    "shot": lambda count, source: _single("shot", "PrefixCondition"),
    "extend": extend_graph,
    "avatar": lambda count, source: avatar_graph(count),
    "t2v": lambda count, source: _T2V,
    "i2v": lambda count, source: _I2V,
    "df": forcing_graph,
    "v1-t2v": lambda count, source: _v1("v1-t2v", None),
    "v1-i2v": lambda count, source: _v1("v1-i2v", "FirstFrame"),
}
_FORMS: Mapping[str, StageGraph] = {  # of every kind, one that has all its stages and hand-overs
    "r2v": _single("r2v", "Condition"),
    "shot": _single("shot", "PrefixCondition"),
    "extend": extend_graph(2, with_source=True),
    "avatar": avatar_graph(2),
    "t2v": _T2V,
    "i2v": _I2V,
    "df": forcing_graph(2, with_source=True),
    "v1-t2v": _v1("v1-t2v", None),
    "v1-i2v": _v1("v1-i2v", "FirstFrame"),
}
STAGES: Mapping[str, frozenset[str]] = {kind: form.stages for kind, form in _FORMS.items()}


def feeds(kinds: Collection[str], *, extended: bool = False) -> tuple[tuple[str, str], ...]:
    """Which stages of these kinds of graphs read which, as (source, reader); without what one chunk hands to the next,
    which would make a circle. `extended`: prompts may be.
    """
    forms = [_FORMS[kind] for kind in kinds]
    edges = {
        (source.stage, node.stage)
        for form in (map(with_prompt, forms) if extended else forms)
        for node in form.nodes
        for source in node.inputs.values()
        if source.chunk == node.chunk and source.stage != node.stage
    }
    return tuple(sorted(edges))


def graph_name(model: Model, request: Request) -> str:
    """How the graph of a request is called."""
    return _plain_name(model, request) + (_WITH_PROMPT if request.prompt_extend else "")


def _plain_name(model: Model, request: Request) -> str:
    match model.graph:
        case "extend":
            suffix = _WITH_SOURCE if source_frames(request) else ""
            return f"extend/{len(extension_rolls(request.duration_s))}{suffix}"
        case "avatar":
            return f"avatar/{len(windows(request.frames)) - 1}"
        case "df":
            return f"df/{len(forced(request))}{_WITH_SOURCE if source_frames(request) else ''}"
    return model.graph


@lru_cache(maxsize=256)
def graph(name: str, results: int) -> StageGraph:
    """The named graph of a job with this many results. KeyError for a name that `graph_name` does not give."""
    plain = name.removesuffix(_WITH_PROMPT)
    kind, _, form = plain.partition("/")
    count = form.removesuffix(_WITH_SOURCE)
    single = KINDS[kind](int(count or 0), form.endswith(_WITH_SOURCE))
    return unroll(single if plain == name else with_prompt(single), results)
