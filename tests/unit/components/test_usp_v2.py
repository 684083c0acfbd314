"""The models of V2 shared among real processes against one process. fp32 on CPU."""

import numpy as np
import pytest

from components.denoiser import Denoiser, ForcingSpec, ForcingTask
from components.device import Placement
from components.dit.v2 import ClipDiT, ForcingDiT
from components.usp import SINGLE, Layout, legal_layouts
from tests.unit.components import usp_ranks

TOLERANCE = 1e-5
CASES = [(6, 4, 4, 1), (6, 4, 4, 2), (6, 4, 4, 3), (5, 4, 6, 5), (10, 4, 6, 5), (1, 2, 2, 1)]
SPEC = ForcingSpec(
    height=32, width=48, latent_frames=6, steps=4, seed=5, flow_shift=8.0, guidance=6.0, lag=2, block=2, known=2
)


def name(layout):
    return f"ulysses{layout.ulysses}-ring{layout.ring}"


@pytest.fixture(scope="module")
def alone(df_root):
    dit = ForcingDiT.load(df_root, Placement.of("cpu"))
    results = []
    for frames, height, width, block in CASES:
        latents, _, _, context = usp_ranks.extension_inputs(frames, 0, height, width)
        times = [40 * (frame // block) for frame in range(frames)]
        results.append(dit.forward(latents, times, context, block_frames=block).numpy())
    return results


def assert_equal_to_one_process(answers, alone):
    for answer in answers:
        for got, first, expected in zip(answer, answers[0], alone, strict=True):
            assert np.abs(got - expected).max() <= TOLERANCE
            assert np.array_equal(got, first), "ranks must agree bit by bit"


@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(1, 2)], ids=name)
def test_two_ranks_see_the_same_blocks(world_2, df_root, alone, layout):
    assert_equal_to_one_process(world_2.run(usp_ranks.force, df_root, [layout], CASES), alone)


@pytest.mark.parametrize("layout", legal_layouts(4, 4), ids=name)
def test_four_ranks_see_the_same_blocks(world_4, df_root, alone, layout):
    assert_equal_to_one_process(world_4.run(usp_ranks.force, df_root, [layout], CASES), alone)


@pytest.fixture(scope="module")
def whole(df_root):
    denoiser = Denoiser(ForcingTask.load(df_root, Placement.of("cpu")))
    run = denoiser.begin(SPEC, *usp_ranks.forcing_inputs(SPEC))
    while not run.done:
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW.numpy()


def test_a_staggered_causal_run_is_the_same_at_degree_two_and_through_changing_layouts(world_2, df_root, whole):
    for layouts in ([Layout(2, 1)], [Layout(1, 2), SINGLE, Layout(2, 1)]):
        for got in world_2.run(usp_ranks.denoise_forcing, df_root, SPEC, layouts):
            assert np.abs(got - whole).max() <= 1e-4


def test_a_staggered_causal_run_is_the_same_with_a_branch_per_rank(world_2, df_root, whole):
    answers = world_2.run(usp_ranks.denoise_forcing, df_root, SPEC, [SINGLE, Layout(2, 1)], 2)
    assert np.abs(answers[0] - whole).max() <= 1e-4
    assert np.array_equal(*answers)


@pytest.mark.parametrize("layout", [Layout(2, 1), Layout(1, 2)], ids=name)
def test_image_to_video_is_the_same_on_two_ranks(world_2, i2v_root, layout):
    expected = usp_ranks.clip_velocity(ClipDiT.load(i2v_root, Placement.of("cpu")))
    answers = world_2.run(usp_ranks.clip, i2v_root, layout)
    assert np.abs(answers[0] - expected).max() <= TOLERANCE
    assert np.array_equal(*answers)
