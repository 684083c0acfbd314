from dataclasses import replace

import pytest
import torch

from components.denoiser import AvatarSpec, AvatarTask, Denoiser
from components.errors import SnapshotMismatch
from components.values import AudioWindow, ImageTokens, KnownFrames, RandomState, Regions, TextContext

SPEC = AvatarSpec(height=32, width=48, latent_frames=3, steps=3, seed=5, flow_shift=11.0)
GUIDED = replace(SPEC, guidance=3.0, guidance_audio=4.0)


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(*, held=2, speakers=1, random=None, seed=0):
    regions = torch.zeros((3, 32, 48), dtype=torch.uint8)
    regions[0, :, :16], regions[1, :, 16:32], regions[2, :, 32:] = 1, 1, 1
    return (
        TextContext(normal(1, 512, 32, seed=seed), normal(1, 512, 32, seed=seed + 1)),
        AudioWindow(normal(speakers, 9, 5, 2, 16, seed=seed + 2)),
        ImageTokens(normal(1, 257, 160, seed=seed + 3)),
        KnownFrames(normal(1, 20, 3, 4, 6, seed=seed + 4), normal(1, 16, held, 4, 6, seed=seed + 5)),
        Regions(regions) if speakers == 2 else Regions.none(),
        random or RandomState.fresh(),
    )


@pytest.fixture(scope="module")
def denoiser(avatar_root, cpu):
    return Denoiser(AvatarTask.load(avatar_root, cpu))


def complete(denoiser, run):
    while not run.done:
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW


def test_frames_handed_on_come_out_as_they_went_in(denoiser):
    given = inputs(held=2)
    made = complete(denoiser, denoiser.begin(SPEC, *given))
    assert torch.equal(made[:, :, :2], given[3].motion_BCKHW)
    free = complete(denoiser, denoiser.begin(SPEC, *inputs(held=0)))
    assert not torch.allclose(free[:, :, :2], given[3].motion_BCKHW, atol=0.1)


def test_numbers_are_drawn_in_the_original_s_order_and_the_stream_goes_on(denoiser):
    stream = torch.Generator().manual_seed(SPEC.seed)
    first = denoiser.begin(SPEC, *inputs(held=0))
    assert torch.equal(first.latents_BCTHW[0], torch.randn((16, 3, 4, 6), generator=stream))
    complete(denoiser, first)
    second = denoiser.begin(SPEC, *inputs(held=2, random=RandomState.of(first.generator)))
    noise = torch.randn((16, 3, 4, 6), generator=stream)
    assert torch.equal(second.latents_BCTHW[0, :, 2:], noise[:, 2:])
    assert torch.equal(second.latents_BCTHW[0, :, :2], torch.randn((16, 2, 4, 6), generator=stream))
    complete(denoiser, second)
    for _ in range(SPEC.steps):
        torch.randn((16, 2, 4, 6), generator=stream)
    assert torch.equal(second.generator.get_state(), stream.get_state())


@pytest.mark.parametrize("spec", [SPEC, GUIDED, replace(SPEC, guidance=2.0), replace(SPEC, guidance_audio=2.0)])
def test_restored_at_any_step_the_rest_is_bit_identical(denoiser, spec):
    earlier = RandomState.of(torch.Generator().manual_seed(99))
    given = inputs(random=earlier)
    run = denoiser.begin(spec, *given)
    snapshots = [denoiser.snapshot(run)]
    while not run.done:
        denoiser.step(run)
        snapshots.append(denoiser.snapshot(run))
    for snapshot in snapshots:
        again = denoiser.restore(snapshot, spec, *given)
        assert torch.equal(complete(denoiser, again), run.latents_BCTHW)
        assert torch.equal(again.generator.get_state(), run.generator.get_state())


def test_another_place_in_the_stream_is_another_run(denoiser):
    snapshot = denoiser.snapshot(denoiser.begin(SPEC, *inputs()))
    other = RandomState.of(torch.Generator().manual_seed(99))
    with pytest.raises(SnapshotMismatch, match="random"):
        denoiser.restore(snapshot, SPEC, *inputs(random=other))
    with pytest.raises(SnapshotMismatch, match="guidance_audio"):
        denoiser.restore(snapshot, replace(SPEC, guidance_audio=2.0), *inputs())


def test_everything_that_is_heard_and_seen_matters(denoiser):
    plain = complete(denoiser, denoiser.begin(SPEC, *inputs()))
    for port in range(4):
        changed = list(inputs())
        changed[port] = inputs(seed=50)[port]
        assert not torch.allclose(complete(denoiser, denoiser.begin(SPEC, *changed)), plain, atol=1e-4), port
    assert not torch.allclose(complete(denoiser, denoiser.begin(GUIDED, *inputs())), plain, atol=1e-4)


def test_two_speakers_are_told_apart_by_their_regions(denoiser):
    given = list(inputs(speakers=2))
    run = complete(denoiser, denoiser.begin(SPEC, *given))
    given[4] = Regions(given[4].masks_RYX[[1, 0, 2]])
    assert not torch.allclose(complete(denoiser, denoiser.begin(SPEC, *given)), run, atol=1e-4)


def test_misfits_are_refused(denoiser):
    context, audio, image, known, none, random = inputs()
    two = inputs(speakers=2)
    empty = two[4].masks_RYX.clone()
    empty[1] = 0
    unmasked = KnownFrames(known.known_BCTHW[:, 4:], known.motion_BCKHW)
    cases = [
        ((context, AudioWindow(audio.heard_PFWNE[:, :8]), image, known, none, random), "8 frames of sound"),
        ((context, audio, ImageTokens(image.tokens_BID[:, :50]), known, none, random), "50 rows"),
        (
            (context, audio, image, unmasked, none, random),
            "co",
        ),
        ((context, two[1], image, known, none, random), "2 speakers do not fit 0 masks"),
        ((context, audio, image, known, two[4], random), "1 speakers do not fit 3 masks"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            denoiser.begin(SPEC, *given)
    run = denoiser.begin(SPEC, *two[:4], Regions(empty), random)
    with pytest.raises(ValueError, match="covers no token"):
        denoiser.step(run)
