"""SkyReels V1's forwards shared among real processes against the same forward in one process. fp32 on CPU."""

import numpy as np
import pytest

from components.denoiser import Denoiser, DenoiseSpec, HunyuanImageTask
from components.dit.hunyuan import HunyuanDiT
from components.usp import SINGLE, Layout, legal_layouts
from tests.unit.components import usp_ranks

TOLERANCE = 1e-5

# (frames, height, width) in latents and text rows: an even case, odd ones, text or video shorter than the group
SIZES = [(2, 4, 4, 4), (3, 6, 6, 7), (3, 2, 2, 1), (1, 2, 2, 5), (1, 2, 4, 2)]


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_equals_one_process_at_every_layout(v1_t2v_root, cpu, ranks, request):
    layouts = [*legal_layouts(ranks, 4), SINGLE]
    dit = HunyuanDiT.load(v1_t2v_root, cpu)
    whole = [dit.forward(*usp_ranks.joint_inputs(*size)).numpy() for size in SIZES]
    answers = request.getfixturevalue(f"world_{ranks}").run(usp_ranks.joint, v1_t2v_root, layouts, SIZES)
    for answer in answers:
        for got, expected, first in zip(answer, whole * len(layouts), answers[0], strict=True):
            assert np.abs(got - expected).max() <= TOLERANCE
            assert np.array_equal(got, first), "ranks must agree bit by bit"


@pytest.mark.parametrize(
    ("ranks", "layouts", "inner"),
    [
        (2, [Layout(2, 1), Layout(1, 2), SINGLE], None),
        (4, [Layout(2, 2), Layout(4, 1), Layout(1, 2)], None),
        (2, [Layout(2, 1)], SINGLE),
        (4, [Layout(4, 1)], Layout(2, 1)),
        (4, [Layout(4, 1)], Layout(1, 2)),
    ],
    ids=str,
)
def test_a_whole_run(v1_i2v_root, cpu, ranks, layouts, inner, request):
    """Under another layout at every step, or with the two evaluations of a guided step on groups of ranks."""
    spec = DenoiseSpec(height=48, width=80, latent_frames=3, steps=4, seed=5, flow_shift=7.0, guidance=6.0)
    denoiser = Denoiser(HunyuanImageTask.load(v1_i2v_root, cpu))
    run = denoiser.begin(spec, *usp_ranks.first_frame_inputs(spec))
    while not run.done:
        denoiser.step(run)
    expected = denoiser.finish(run).video_BCTHW.numpy()
    world = request.getfixturevalue(f"world_{ranks}")
    answers = world.run(usp_ranks.denoise_first_frame, v1_i2v_root, spec, layouts, inner)
    for latents in answers:
        assert np.abs(latents - expected).max() <= 1e-4
        assert np.array_equal(latents, answers[0]), "ranks must agree bit by bit"
