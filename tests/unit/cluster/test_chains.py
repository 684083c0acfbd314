"""Where each chunk of a chained video lies, and how the chunks are wired."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.chains import decoded_latents, denoise_steps, ends, new_latents, pieces
from cluster.graphs import NodeKey
from cluster.plans import extension_frames
from cluster.records import Forcing, Request, decode, encode
from cluster.registry import MODELS
from cluster.wiring import STAGES, graph, graph_name
from tests.unit.cluster.makers import request

EXTEND, SHOT, AVATAR = "skyreels-v3-extend", "skyreels-v3-shot", "skyreels-v3-avatar"
FORCED = "skyreels-v2-df"


def requests() -> Iterator[Request]:
    for seconds in (1, 5, 11, 30):
        for source in (0, 7, 240):
            frames = source + extension_frames(seconds)
            yield request(model=EXTEND, duration_s=seconds, frames=frames, include_source=bool(source))
    yield request(model=SHOT, duration_s=5, frames=121)
    for frames in (10, 80, 81, 82, 146, 5000):
        yield request(model=AVATAR, duration_s=math.ceil(frames / 25), fps=25, frames=frames)
    yield request()
    yield request(model="skyreels-v2-t2v", images=(), resolution="540P", duration_s=4, frames=97)
    yield request(model="skyreels-v2-i2v", resolution="540P", duration_s=4, frames=97)
    for seconds, frames in ((4, 97), (10, 257), (60, 1457)):
        yield request(model=FORCED, images=(), resolution="540P", duration_s=seconds, frames=frames)
    yield request(model=FORCED, resolution="64P", duration_s=3, frames=89)
    film = request().images[0]
    for source in (0, 50):
        yield request(
            model=FORCED, images=(), video=film, duration_s=2, frames=48 + source, include_source=bool(source)
        )
    blocks = Forcing(ar_step=5, causal_block_size=5)
    yield request(model=FORCED, images=(), duration_s=2, frames=77, forcing=blocks)


@pytest.mark.parametrize("asked", list(requests()), ids=lambda asked: f"{asked.model}-{asked.frames}")
def test_chunks_follow_each_other_on_one_timeline(asked: Request) -> None:
    frame = segment = 0
    for piece in pieces(asked):
        assert (piece.first_frame, piece.first_segment) == (frame, segment)
        assert piece.frames > 0
        frame += piece.frames
        segment += math.ceil(piece.frames / asked.fps)
    assert frame == asked.frames


@pytest.mark.parametrize("asked", list(requests()), ids=lambda asked: f"{asked.model}-{asked.frames}")
def test_a_graph_has_a_decode_for_every_piece_and_one_final(asked: Request) -> None:
    model = MODELS[asked.model]
    name = graph_name(model, asked)
    made = graph(name, 1)
    assert made.name == name
    assert made.stages <= STAGES[model.graph]
    decodes = {node.chunk for node in made.nodes if node.stage in {"decode", "source"}}
    found = pieces(asked)
    assert {piece.chunk for piece in found} <= decodes
    assert made.finals == (("decode", 0, found[-1].chunk),)
    for node in made.nodes:
        if node.stage == "denoise":
            assert 0 < new_latents(asked, node.chunk) <= decoded_latents(asked, node.chunk)
    assert sum(node.weight for node in made.nodes) == pytest.approx(1.0, abs=0.1)


@given(st.integers(1, 12), st.integers(1, 3), st.booleans())
def test_a_chain_runs_chunk_by_chunk(count: int, results: int, source: bool) -> None:
    whole = graph(f"extend/{count}{'+source' if source else ''}", results)
    done: list[NodeKey] = []
    while ready := whole.ready(done):
        done += [node.key for node in ready]
    order = [chunk for stage, result, chunk in done if (stage, result) == ("decode", 0)]
    assert order == list(range(1, count + 1))
    assert sorted(done) == sorted(node.key for node in whole.nodes)


def test_a_long_avatar_hands_each_window_its_own_key_frame() -> None:
    whole = graph("avatar/78", 1)
    nodes = {node.key: node for node in whole.nodes}
    assert len(whole.nodes) < 330
    for window in range(1, 79):
        inputs = nodes["condition", 0, window].inputs
        assert inputs["key"].port == f"key{window}"
        assert ("tail" in inputs) is (window > 1)
        assert nodes["denoise", 0, window].inputs["random"].chunk == window - 1


def test_requests_of_before_are_read_as_they_were() -> None:
    old = encode(request())
    for name in ("video", "audio", "masks", "include_source", "remixed_from"):
        del old[name]
    for image in old["images"]:
        for name in ("duration_s", "fps", "has_audio"):
            del image[name]
    assert decode(Request, old) == request()


def test_steps_of_a_chunk_where_frames_take_turns() -> None:
    asked = request(model=FORCED, images=(), duration_s=2, steps=8, frames=65)
    assert [denoise_steps(asked, chunk) for chunk in (1, 2)] == [8, 8]
    asked = request(model=FORCED, images=(), duration_s=2, steps=8, frames=77, forcing=Forcing(5, 5))
    assert [denoise_steps(asked, chunk) for chunk in (1, 2, 3)] == [13, 8, 8]
    assert denoise_steps(request(), 0) == 8


def test_what_a_chunk_begins_and_ends_with() -> None:
    image = request().images[0]
    both = request(model=FORCED, images=(image, image), duration_s=3, frames=89)
    assert [ends(both, chunk) for chunk in (1, 2, 3)] == [(1, 0), (5, 0), (5, 1)]
    assert ends(request(model=FORCED, images=(), duration_s=1), 1) == (0, 0)
    assert ends(request(model=FORCED, images=(), video=image, duration_s=1, frames=24), 1) == (5, 0)
