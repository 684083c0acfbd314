from dataclasses import replace

import pytest
import torch

from components.denoiser import Denoiser, DenoiseSpec, ExtensionTask, ShotTask, Snapshot
from components.errors import SnapshotMismatch
from components.values import Condition, PrefixCondition, TextContext

SPEC = DenoiseSpec(height=32, width=48, latent_frames=3, steps=4, seed=11, flow_shift=8.0)


@pytest.fixture(scope="module", params=[ExtensionTask, ShotTask], ids=["single", "shot"])
def denoiser(request, extension_root, cpu):
    return Denoiser(request.param.load(extension_root, cpu))


@pytest.fixture(scope="module")
def prefix():
    return PrefixCondition(torch.randn((1, 16, 2, 4, 6), generator=torch.Generator().manual_seed(7)))


def complete(denoiser, run):
    while not run.done:
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW


def test_noise_is_the_seeds_for_the_new_frames_only(denoiser, context, prefix):
    run = denoiser.begin(SPEC, context, prefix)
    generator = torch.Generator().manual_seed(11)
    assert torch.equal(run.latents_BCTHW, torch.randn((1, 16, 3, 4, 6), generator=generator))
    assert torch.equal(run.generator.get_state(), generator.get_state())


def test_the_result_is_what_is_decoded(denoiser, context, prefix):
    got = complete(denoiser, denoiser.begin(SPEC, context, prefix))
    if isinstance(denoiser.task, ShotTask):
        assert got.shape == (1, 16, 3, 4, 6)
    else:
        assert got.shape == (1, 16, 5, 4, 6)
        assert torch.equal(got[:, :, :2], prefix.latents_BCTHW)


def test_the_prefix_and_the_prompt_matter(denoiser, context, prefix):
    usual = complete(denoiser, denoiser.begin(SPEC, context, prefix))[:, :, -3:]
    other = PrefixCondition(prefix.latents_BCTHW + 1)
    prompt = TextContext(context.negative_BLD, context.negative_BLD)
    for inputs in ((context, other), (prompt, prefix)):
        assert not torch.allclose(complete(denoiser, denoiser.begin(SPEC, *inputs))[:, :, -3:], usual, atol=1e-3)


def test_restored_at_any_step_and_interleaved_the_rest_is_bit_identical(denoiser, context, prefix):
    run = denoiser.begin(SPEC, context, prefix)
    blobs = []
    while not run.done:
        blobs.append(denoiser.snapshot(run).to_bytes())
        denoiser.step(run)
    expected = denoiser.finish(run).video_BCTHW
    resumed = [denoiser.restore(Snapshot.from_bytes(blob), SPEC, context, prefix) for blob in blobs]
    while left := [run for run in resumed if not run.done]:
        for run in left:
            denoiser.step(run)
    assert all(torch.equal(denoiser.finish(run).video_BCTHW, expected) for run in resumed)


def test_the_two_checkpoints_are_told_apart(extension_root, cpu, context, prefix):
    single, shot = (Denoiser(task.load(extension_root, cpu)) for task in (ExtensionTask, ShotTask))
    snapshot = single.snapshot(single.begin(SPEC, context, prefix))
    with pytest.raises(SnapshotMismatch, match="weights"):
        shot.restore(snapshot, SPEC, context, prefix)
    with pytest.raises(SnapshotMismatch, match="condition"):
        single.restore(snapshot, SPEC, context, PrefixCondition(prefix.latents_BCTHW + 1))


def test_misfits_are_refused(denoiser, context, prefix):
    latents = prefix.latents_BCTHW
    cases = [
        (SPEC, (TextContext(context.prompt_BLD[..., :8], context.negative_BLD), prefix), "8 wide"),
        (replace(SPEC, guidance=2.0), (context, prefix), "no guidance"),
        (SPEC, (context, PrefixCondition(latents[:, :8])), "does not fit a video of 32 × 48"),
        (SPEC, (context, PrefixCondition(latents[..., :4])), "does not fit"),
        (SPEC, (context, Condition(latents, latents)), "condition must be of kind PrefixCondition"),
        (SPEC, (context,), "context, condition"),
    ]
    for spec, inputs, message in cases:
        with pytest.raises(ValueError, match=message):
            denoiser.begin(spec, *inputs)
