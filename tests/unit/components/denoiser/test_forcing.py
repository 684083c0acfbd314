from dataclasses import replace

import pytest
import torch

from components.denoiser import Denoiser, ForcingSpec, ForcingTask, Snapshot
from components.forcing import schedule
from components.sampler import FlowUniPC
from components.values import EndsCondition, RandomState, TextContext

SPEC = ForcingSpec(height=32, width=48, latent_frames=4, steps=3, seed=5, flow_shift=8.0, guidance=6.0)
STAGGERED = replace(SPEC, lag=2, block=2)
CONTINUED = replace(SPEC, known=2, known_timestep=20)
BETWEEN = replace(CONTINUED, known=1, held=1)
ALL = [SPEC, STAGGERED, replace(STAGGERED, known=2, known_timestep=20), CONTINUED, BETWEEN]


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(spec, random=None):
    return (
        TextContext(normal(1, 512, 32, seed=0), normal(1, 512, 32, seed=1)),
        EndsCondition(normal(1, 16, spec.known, 4, 6, seed=2), normal(1, 16, spec.held, 4, 6, seed=3)),
        random or RandomState.fresh(),
    )


@pytest.fixture(scope="module")
def denoiser(df_root, cpu):
    return Denoiser(ForcingTask.load(df_root, cpu))


def complete(denoiser, run):
    while not run.done:
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW


@pytest.mark.parametrize("spec", ALL, ids=str)
def test_restored_at_any_iteration_the_rest_is_bit_identical(denoiser, spec):
    given = inputs(spec, RandomState.of(torch.Generator().manual_seed(99)))
    run = denoiser.begin(spec, *given)
    snapshots = [denoiser.snapshot(run)]
    while not run.done:
        denoiser.step(run)
        snapshots.append(denoiser.snapshot(run))
    made = denoiser.finish(run).video_BCTHW
    assert made.shape[2] == spec.latent_frames
    for stored in [snapshot.to_bytes() for snapshot in snapshots]:
        snapshot = Snapshot.from_bytes(stored)
        again = denoiser.restore(snapshot, spec, *given)
        assert torch.equal(complete(denoiser, again), made)
        assert torch.equal(again.generator.get_state(), run.generator.get_state())


def test_known_frames_come_out_as_they_went_in_and_shape_the_others(denoiser):
    given = inputs(BETWEEN)
    made = complete(denoiser, denoiser.begin(BETWEEN, *given))
    assert torch.equal(made[:, :, :1], given[1].first_BCKHW)
    other = EndsCondition(given[1].first_BCKHW, given[1].last_BCKHW + 1)
    assert not torch.allclose(complete(denoiser, denoiser.begin(BETWEEN, given[0], other, given[2])), made, atol=1e-3)


def test_the_stream_of_random_numbers_goes_on(denoiser):
    stream = torch.Generator().manual_seed(SPEC.seed)
    first = denoiser.begin(SPEC, *inputs(SPEC))
    assert torch.equal(first.latents_BCTHW[0], torch.randn((16, 4, 4, 6), generator=stream))
    complete(denoiser, first)
    second = denoiser.begin(CONTINUED, *inputs(CONTINUED, RandomState.of(first.generator)))
    assert torch.equal(second.latents_BCTHW[0, :, 2:], torch.randn((16, 4, 4, 6), generator=stream)[:, 2:])
    complete(denoiser, second)
    for _ in range(CONTINUED.steps):
        torch.randn((1, 16, 2, 4, 6), generator=stream)
    assert torch.equal(second.generator.get_state(), stream.get_state())


def test_iterations_are_more_than_steps_where_blocks_take_turns(denoiser):
    run = denoiser.begin(STAGGERED, *inputs(STAGGERED))
    assert run.steps == STAGGERED.steps + (4 // 2 - 1) * STAGGERED.lag
    seen = []
    while not run.done:
        before = run.latents_BCTHW
        denoiser.step(run)
        seen.append([not torch.equal(before[:, :, i], run.latents_BCTHW[:, :, i]) for i in (0, 2)])
    assert seen == [[True, False], [True, False], [True, True], [False, True], [False, True]]


def test_causal_blocks_do_not_see_what_comes_after_them(denoiser):
    dit, latents, context = denoiser.task._dit, normal(1, 16, 4, 4, 6, seed=7), inputs(SPEC)[0].prompt_BLD
    changed = torch.cat([latents[:, :, :2], latents[:, :, 2:] + 1], dim=2)
    times = [300, 300, 800, 800]
    for block, same in ((2, True), (1, False)):
        a, b = (dit.forward(video, times, context, block_frames=block) for video in (latents, changed))
        assert torch.equal(a[:, :, :2], b[:, :, :2]) is same


def test_a_checkpoint_that_knows_the_frame_rate_is_told_it(denoiser):
    dit, latents, context = denoiser.task._dit, normal(1, 16, 4, 4, 6, seed=7), inputs(SPEC)[0].prompt_BLD
    at = {fps: dit.forward(latents, [500] * 4, context, fps=fps) for fps in (16, 24, 30)}
    assert torch.equal(at[24], at[30])
    assert not torch.allclose(at[16], at[24], atol=1e-4)


def test_modulation_is_held_once_per_frame(denoiser):
    shapes = []
    handle = denoiser.task.model.blocks[0].register_forward_hook(lambda _m, args, _o: shapes.append(args[2].shape))
    run = denoiser.begin(SPEC, *inputs(SPEC))
    denoiser.step(run)
    handle.remove()
    assert set(shapes) == {(4, 6, 96)}


def test_what_does_not_fit_is_refused(denoiser):
    context, ends, random = inputs(CONTINUED)
    with pytest.raises(ValueError, match="do not fit 1 latent frames"):
        denoiser.begin(replace(CONTINUED, known=1), context, ends, random)
    with pytest.raises(ValueError, match="no blocks of 3"):
        denoiser.begin(replace(SPEC, block=3), *inputs(SPEC))
    with pytest.raises(ValueError, match="negative prompt"):
        denoiser.begin(SPEC, TextContext(context.prompt_BLD, context.negative_BLD[:, :0]), *inputs(SPEC)[1:])


def test_a_window_slides_when_the_blocks_before_are_done():
    plan = schedule(FlowUniPC(20, 3.0).timesteps, 24, lag=5, block=3, window=12)
    assert (plan.windows[0], plan.windows[-1]) == ((0, 12), (12, 24))
    with pytest.raises(ValueError, match="a lag of at least 5"):
        schedule(FlowUniPC(20, 3.0).timesteps, 24, lag=4, block=3, window=12)
