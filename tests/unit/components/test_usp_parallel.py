"""Forwards shared among real processes against the same forward in one process. fp32 on CPU."""

import numpy as np
import pytest

from components.denoiser import Denoiser, DenoiseSpec, ReferenceTask
from components.device import Placement
from components.dit import ExtensionDiT
from components.usp import SINGLE, Layout, legal_layouts
from tests.unit.components import usp_ranks
from tests.unit.components.world import CALL_S, Failure, World

TOLERANCE = 1e-5

# (frames, height, width, references) in latents: (frames + 4) · height/2 · width/2 tokens
DIVISIBLE = (4, 4, 4, 4)  # 32
ODD = (5, 6, 6, 1)  # 81
PRIME = (3, 2, 2, 2)  # 7
SHORT = (1, 2, 2, 3)  # 5, fewer than eight ranks
ONE_MORE = (7, 6, 2, 0)  # 33: one token more than divisible


def name(layout):
    return f"ulysses{layout.ulysses}-ring{layout.ring}"


@pytest.fixture(scope="module")
def expected():
    """The velocity of one process, computed once per model and size."""
    models, known = {}, {}

    def of(heads, size):
        if heads not in models:
            models[heads] = usp_ranks.tiny_model(heads)
        if (heads, size) not in known:
            known[heads, size] = usp_ranks.velocity(models[heads], *size)
        return known[heads, size]

    return of


def assert_equal_to_one_process(world, expected, heads, layout, sizes):
    answers = world.run(usp_ranks.forward, heads, layout, sizes)
    for size, *velocities in zip(sizes, *answers, strict=True):
        for velocity in velocities:
            assert np.abs(velocity - expected(heads, size)).max() <= TOLERANCE, (layout, size)
            assert np.array_equal(velocity, velocities[0]), "ranks must agree bit by bit"


@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(1, 2)], ids=name)
def test_two_ranks(world_2, expected, layout):
    assert_equal_to_one_process(world_2, expected, 4, layout, [DIVISIBLE, ODD, PRIME, SHORT, ONE_MORE])


@pytest.mark.parametrize("layout", legal_layouts(4, 4), ids=name)
def test_four_ranks(world_4, expected, layout):
    assert_equal_to_one_process(world_4, expected, 4, layout, [DIVISIBLE, ODD, PRIME, SHORT, ONE_MORE])


@pytest.mark.parametrize("layout", legal_layouts(4, 3), ids=name)
def test_heads_that_only_a_ring_can_share(world_4, expected, layout):
    assert_equal_to_one_process(world_4, expected, 3, layout, [DIVISIBLE, ODD])


def test_a_batch_of_two(world_4, expected):
    assert_equal_to_one_process(world_4, expected, 4, Layout(2, 2), [(*ODD, 2)])


def test_three_ranks(expected):
    with World(3) as world:
        for layout in (Layout(3, 1), Layout(1, 3)):
            assert_equal_to_one_process(world, expected, 3, layout, [DIVISIBLE, ODD, PRIME])


def test_eight_ranks(expected):
    with World(8) as world:
        for layout in legal_layouts(8, 8):
            assert_equal_to_one_process(world, expected, 8, layout, [DIVISIBLE, ODD, SHORT])


def test_layout_changes_between_forwards(world_4, expected):
    order = [Layout(4, 1), Layout(1, 2), SINGLE, Layout(2, 2), SINGLE, Layout(1, 4), Layout(2, 1)]
    for answers in world_4.run(usp_ranks.forward_through, 4, order, ODD):
        for layout, velocity in zip(order, answers, strict=True):
            assert np.abs(velocity - expected(4, ODD)).max() <= TOLERANCE, layout
        singles = [velocity for layout, velocity in zip(order, answers, strict=True) if layout == SINGLE]
        assert np.array_equal(*singles)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_whole_run_with_another_layout_at_every_step(world_4, root, guidance):
    # 3 × 5 positions by 3 + 4 frames: 105 tokens, odd for every degree.
    spec = DenoiseSpec(height=48, width=80, latent_frames=3, steps=4, seed=5, guidance=guidance)
    denoiser = Denoiser(ReferenceTask.load(root, Placement.of("cpu")))
    run = denoiser.begin(spec, *usp_ranks.denoise_inputs(spec))
    while not run.done:
        denoiser.step(run)
    expected = denoiser.finish(run).video_BCTHW.numpy()
    order = [Layout(2, 2), Layout(1, 2), SINGLE, Layout(4, 1)]
    answers = world_4.run(usp_ranks.denoise, root, spec, order)
    for latents in answers:
        assert np.abs(latents - expected).max() <= TOLERANCE
        assert np.array_equal(latents, answers[0]), "ranks must agree bit by bit"


def test_single_restores_the_model(world_2):
    world_2.run(usp_ranks.use, 4, SINGLE)
    (before, _) = world_2.run(usp_ranks.pieces, 4)
    world_2.run(usp_ranks.use, 4, Layout(1, 2))
    (shared, _) = world_2.run(usp_ranks.pieces, 4)
    world_2.run(usp_ranks.use, 4, Layout(2, 1))
    (again, _) = world_2.run(usp_ranks.pieces, 4)
    world_2.run(usp_ranks.use, 4, SINGLE)
    (after, _) = world_2.run(usp_ranks.pieces, 4)
    assert before == after != shared
    assert again == shared  # nothing piles up


@pytest.mark.parametrize(
    ("heads", "layout", "message"),
    [
        (3, Layout(2, 1), "cannot share 3 attention heads evenly"),
        (4, Layout(4, 1), "does not divide the world of 2"),
        (4, Layout(1, 3), "does not divide the world of 2"),
    ],
)
def test_illegal_layouts_are_refused_and_change_nothing(world_2, expected, heads, layout, message):
    world_2.run(usp_ranks.use, heads, Layout(1, 2))
    for failure in world_2.attempt(usp_ranks.use, heads, layout):
        assert isinstance(failure, Failure)
        assert failure.kind == "ValueError"
        assert message in failure.message
    assert_equal_to_one_process(world_2, expected, heads, Layout(1, 2), [ODD])


def test_a_backend_without_logsumexp_runs_with_ulysses_but_not_in_a_ring(world_2):
    world_2.run(usp_ranks.use_backend, 4, Layout(2, 1), "_native_math")
    for failure in world_2.attempt(usp_ranks.use_backend, 4, Layout(1, 2), "_native_math"):
        assert isinstance(failure, Failure)
        assert failure.kind == "Unsupported"
        assert "'_native_math' cannot run in a ring" in failure.message


@pytest.mark.parametrize(
    ("call", "message"), [(usp_ranks.token_times, "timestep per token"), (usp_ranks.masked, "without a mask")]
)
def test_what_cannot_be_shared_is_refused(world_2, call, message):
    for failure in world_2.attempt(call, 4, Layout(2, 1)):
        assert isinstance(failure, Failure)
        assert failure.kind == "Unsupported"
        assert message in failure.message


@pytest.mark.parametrize("layout", [Layout(4, 1), Layout(1, 4), Layout(2, 2)], ids=name)
def test_a_rank_that_raises_does_not_hold_up_the_others(layout):
    with World(4, timeout_s=3) as world:
        answers = world.attempt(usp_ranks.raise_on, 1, 4, layout)
    assert answers[1].kind == "ArithmeticError"
    for answer in (answers[0], *answers[2:]):
        assert isinstance(answer, Failure)
        assert answer.kind != "Died"


@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(1, 2)], ids=name)
def test_a_rank_that_is_killed_fails_the_others_at_once(layout):
    with World(2, timeout_s=2 * CALL_S) as world:  # the timeout cannot be what ends the wait
        survivor, dead = world.attempt(usp_ranks.die_on, 1, 4, layout)
    assert dead.kind == "Died"
    assert isinstance(survivor, Failure)
    assert survivor.kind != "Died"


# (new, source, height, width) in latents; a toy latent has one to three tokens per frame
EXTENSIONS = [(9, 7, 2, 2), (3, 3, 4, 6), (1, 2, 2, 4), (5, 0, 2, 2)]


@pytest.mark.parametrize("shot", [False, True], ids=["single", "shot"])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_an_extension_is_cut_between_frames(extension_root, cpu, world_size, shot, request):
    world = request.getfixturevalue(f"world_{world_size}")
    layouts = [*legal_layouts(world_size, 4), SINGLE]
    dit = ExtensionDiT.load(extension_root, cpu, shot=shot)
    whole = [dit.forward(*usp_ranks.extension_inputs(*size)).numpy() for size in EXTENSIONS]
    for answer in world.run(usp_ranks.extend, extension_root, shot, layouts, EXTENSIONS):
        for got, expected in zip(answer, whole * len(layouts), strict=True):
            assert np.abs(got - expected).max() <= TOLERANCE
