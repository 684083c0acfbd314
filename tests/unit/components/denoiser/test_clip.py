"""Text- and image-to-video, alone and against the library's own pipelines."""

from dataclasses import replace

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
)

from components.denoiser import Denoiser, DenoiseSpec, ImageTask, Snapshot, TextTask
from components.errors import SnapshotMismatch
from components.known import encode_known
from components.vae import Vae
from components.values import ImageTokens, KnownFrames, Pixels, TextContext

SPEC = DenoiseSpec(height=32, width=48, latent_frames=3, steps=4, seed=5, flow_shift=8.0, guidance=6.0)


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def context(seed=0):
    return TextContext(normal(1, 512, 32, seed=seed), normal(1, 512, 32, seed=seed + 1))


def known():
    return KnownFrames(normal(1, 20, 3, 4, 6, seed=4), normal(1, 16, 0, 4, 6, seed=5)), ImageTokens(
        normal(1, 257, 160, seed=6)
    )


@pytest.fixture(scope="module")
def text(t2v_root, cpu):
    return Denoiser(TextTask.load(t2v_root, cpu))


@pytest.fixture(scope="module")
def image(i2v_root, cpu):
    return Denoiser(ImageTask.load(i2v_root, cpu))


@pytest.fixture(params=["text", "image"])
def either(request, text, image):
    return (text, (context(),)) if request.param == "text" else (image, (context(), *known()))


def complete(denoiser, run):
    while not run.done:
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW


def test_the_noise_is_the_first_that_is_drawn(either):
    denoiser, inputs = either
    run = denoiser.begin(SPEC, *inputs)
    assert torch.equal(run.latents_BCTHW, normal(1, 16, 3, 4, 6, seed=SPEC.seed))


def test_restored_at_any_step_the_rest_is_bit_identical(either):
    denoiser, inputs = either
    run = denoiser.begin(SPEC, *inputs)
    snapshots = [denoiser.snapshot(run)]
    while not run.done:
        denoiser.step(run)
        snapshots.append(denoiser.snapshot(run))
    for stored in [snapshot.to_bytes() for snapshot in snapshots]:
        snapshot = Snapshot.from_bytes(stored)
        assert torch.equal(complete(denoiser, denoiser.restore(snapshot, SPEC, *inputs)), run.latents_BCTHW)
    with pytest.raises(SnapshotMismatch, match=r"spec\.guidance"):
        denoiser.restore(snapshots[1], replace(SPEC, guidance=5.0), *inputs)


def test_guidance_is_between_what_the_prompts_give(text):
    inputs, latents = context(), normal(1, 16, 3, 4, 6, seed=SPEC.seed)
    velocity = [text.task._dit.forward(latents, 999.0, rows) for rows in (inputs.prompt_BLD, inputs.negative_BLD)]
    run = text.begin(SPEC, inputs)
    got = run.flow.velocity(latents, 999.0, text.branches)
    assert torch.allclose(got, velocity[1] + 6.0 * (velocity[0] - velocity[1]), atol=1e-5)
    alone = text.begin(replace(SPEC, guidance=1.0), TextContext(inputs.prompt_BLD, inputs.negative_BLD[:, :0]))
    assert torch.equal(alone.flow.velocity(latents, 999.0, text.branches), velocity[0])


def test_what_does_not_fit_is_refused(text, image):
    with pytest.raises(ValueError, match="negative prompt's context"):
        text.begin(SPEC, TextContext(context().prompt_BLD, context().negative_BLD[:, :0]))
    frames, tokens = known()
    with pytest.raises(ValueError, match="does not fit 4 latent frames"):
        image.begin(replace(SPEC, latent_frames=4), context(), frames, tokens)
    with pytest.raises(ValueError, match="256 rows where 257"):
        image.begin(SPEC, context(), frames, ImageTokens(tokens.tokens_BID[:, 1:]))
    with pytest.raises(ValueError, match="9 rows where 512"):
        image.begin(SPEC, TextContext(normal(1, 9, 32, seed=0), normal(1, 9, 32, seed=1)), frames, tokens)


class OldGrid(UniPCMultistepScheduler):
    """The library's sampler on the grid that the models are run with; its own default begins at another sigma."""

    def set_timesteps(self, num_inference_steps=None, device=None, **_):
        grid = torch.linspace(1 - 1 / 1000, 0, num_inference_steps + 1, dtype=torch.float64)[:-1]
        super().set_timesteps(sigmas=grid.numpy(), device=device)


def library(kind, model, vae, sampler_shift):
    """The library's pipeline over the same weights."""
    config = {name: value for name, value in model.config.items() if not name.startswith("_")}
    transformer = SkyReelsV2Transformer3DModel(**config)
    transformer.load_state_dict(model.state_dict())
    sampler = OldGrid(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=sampler_shift)
    parts = {"tokenizer": None, "text_encoder": None, "vae": vae, "scheduler": sampler}
    if kind is SkyReelsV2ImageToVideoPipeline:
        parts |= {"image_processor": None, "image_encoder": None}
    pipeline = kind(transformer=transformer.eval(), **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def settings(inputs):
    return {
        "prompt": None,
        "prompt_embeds": inputs.prompt_BLD,
        "negative_prompt_embeds": inputs.negative_BLD,
        "height": SPEC.height,
        "width": SPEC.width,
        "num_frames": 9,
        "num_inference_steps": SPEC.steps,
        "guidance_scale": SPEC.guidance,
        "generator": torch.Generator().manual_seed(SPEC.seed),
        "output_type": "latent",
    }


@pytest.fixture(scope="module")
def vae_model(t2v_root, cpu) -> AutoencoderKLWan:
    return Vae.load(t2v_root, cpu).model


def test_text_to_video_is_the_librarys(text, vae_model):
    inputs = context()
    pipeline = library(SkyReelsV2Pipeline, text.task.model, vae_model, SPEC.flow_shift)
    expected = pipeline(**settings(inputs)).frames
    got = complete(text, text.begin(SPEC, inputs))
    assert float((got - expected).abs().max()) <= 1e-4


def test_image_to_video_is_the_librarys(image, vae_model, cpu):
    inputs, (_, tokens) = context(), known()
    picture = torch.rand((3, 32, 48), generator=torch.Generator().manual_seed(8))
    spec = replace(SPEC, flow_shift=5.0)
    pipeline = library(SkyReelsV2ImageToVideoPipeline, image.task.model, vae_model, spec.flow_shift)
    pipeline.encode_image = lambda *_: tokens.tokens_BID  # its preprocessing is another than the original's
    expected = pipeline(image=picture[None], **settings(inputs)).frames
    condition = encode_known(Vae(vae_model, cpu), Pixels(picture[:, None] * 2 - 1), None, 9)
    got = complete(image, image.begin(spec, inputs, condition, tokens))
    assert float((got - expected).abs().max()) <= 1e-4
