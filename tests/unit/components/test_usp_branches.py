"""Branches of a guided step on different ranks against the same branches in turn. fp32 on CPU."""

import numpy as np
import pytest

from components.denoiser import Denoiser, DenoiseSpec, ReferenceTask
from components.device import Placement
from components.usp import SINGLE, Layout
from tests.unit.components import usp_ranks
from tests.unit.components.world import Failure

TOLERANCE = 1e-6
SIZES = [(4, 4, 4, 4), (5, 6, 6, 1), (3, 2, 2, 2), (1, 2, 2, 3)]  # frames, height, width in latents; references
HEADS = 4


@pytest.fixture(scope="module")
def expected():
    model = usp_ranks.tiny_model(HEADS)
    return [usp_ranks.velocity(model, *size) for size in SIZES]


# world, layout of one group, layout of all ranks, branches, of them evaluated at once
CASES = [
    (2, SINGLE, Layout(2, 1), 2, 2),
    (2, SINGLE, Layout(1, 2), 3, 2),
    (2, SINGLE, Layout(2, 1), 4, 4),
    (2, SINGLE, Layout(2, 1), 1, 0),
    (3, SINGLE, Layout(1, 3), 3, 3),
    (3, SINGLE, Layout(1, 3), 2, 0),
    (4, Layout(2, 1), Layout(4, 1), 2, 2),
    (4, Layout(2, 1), Layout(2, 2), 3, 2),
    (4, Layout(1, 2), Layout(4, 1), 3, 2),
    (4, SINGLE, Layout(4, 1), 3, 0),
    (4, SINGLE, Layout(4, 1), 4, 4),
]


@pytest.mark.parametrize(("ranks", "inner", "whole", "count", "at_once"), CASES, ids=str)
def test_branches_equal_those_in_turn(request, expected, ranks, inner, whole, count, at_once):
    world = request.getfixturevalue(f"world_{ranks}")
    answers = world.run(usp_ranks.branches, HEADS, inner, whole, SIZES[:count])
    for results in answers:
        for got, one, first in zip(results, expected[:count], answers[0], strict=True):
            assert np.abs(got - one).max() <= TOLERANCE
            assert np.array_equal(got, first), "ranks must agree bit by bit"
    # The arithmetic is that of the layout alone: bit by bit what the world computes under it.
    for layout, part in ((inner, slice(at_once)), (whole, slice(at_once, count))):
        (in_turn, *_) = world.run(usp_ranks.forward, HEADS, layout, SIZES[:count][part])
        assert all(np.array_equal(got, one) for got, one in zip(answers[0][part], in_turn, strict=True))


@pytest.mark.parametrize(
    ("ranks", "inner", "whole"),
    [(2, SINGLE, Layout(2, 1)), (3, SINGLE, Layout(1, 3)), (4, Layout(2, 1), Layout(2, 2))],
    ids=str,
)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_whole_run(request, root, ranks, inner, whole, guidance):
    spec = DenoiseSpec(height=48, width=80, latent_frames=3, steps=4, seed=5, guidance=guidance, guidance_image=2.0)
    denoiser = Denoiser(ReferenceTask.load(root, Placement.of("cpu")))
    run = denoiser.begin(spec, *usp_ranks.denoise_inputs(spec))
    while not run.done:
        denoiser.step(run)
    expected = denoiser.finish(run).video_BCTHW.numpy()
    answers = request.getfixturevalue(f"world_{ranks}").run(usp_ranks.denoise_branches, root, spec, inner, whole)
    for latents in answers:
        assert np.abs(latents - expected).max() <= TOLERANCE * 10  # of values up to 5, through four steps
        assert np.array_equal(latents, answers[0]), "ranks must agree bit by bit"


@pytest.mark.parametrize(
    ("inner", "whole", "message"),
    [
        (Layout(2, 1), Layout(2, 1), "Ulysses 2 × ring 1 takes all 2 ranks for one branch"),
        (Layout(1, 3), Layout(2, 1), "does not divide the world of 2"),
        (SINGLE, Layout(4, 1), "does not divide the world of 2"),
    ],
)
def test_layouts_that_leave_no_second_group_or_do_not_fit_are_refused(world_2, inner, whole, message):
    for failure in world_2.attempt(usp_ranks.branches, HEADS, inner, whole, SIZES[:2]):
        assert isinstance(failure, Failure)
        assert failure.kind == "ValueError"
        assert message in failure.message


def test_an_engine_is_refused_where_it_cannot_run(world_2):
    for layout in (Layout(2, 1), Layout(1, 2)):
        for failure in world_2.attempt(usp_ranks.use_engine, HEADS, layout, "yunchang:FA3"):
            assert failure.kind == "Unsupported"
            assert failure.message == "Attention engine 'yunchang:FA3' runs on CUDA devices only; use none on cpu."
    world_2.run(usp_ranks.use_engine, HEADS, SINGLE, "yunchang:FA3")  # nothing is shared, so nothing is asked of it
