"""The reference-to-video numerics against the original's, module by module and whole. fp32 on CPU.

Tolerances are maximal absolute differences. Everything a test needs comes out of the case's own files.
"""

import logging

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import UMT5Config, UMT5EncoderModel

from cluster import plans
from components.checkpoints import known_arguments
from components.denoiser import Denoiser, DenoiseSpec, ReferenceTask
from components.device import Placement
from components.dit.reference import ReferenceDiT
from components.image import letterbox
from components.sampler import FlowUniPC
from components.text import TextEncoder
from components.vae import Vae
from components.values import Latents, TextContext
from tests.goldens import keymaps
from tests.goldens.cases import max_diff, parametrize, weights

CPU = Placement.of("cpu")
log = logging.getLogger("goldens")  # --log-cli-level=INFO shows the measured differences


def make_dit(config, state) -> tuple[WanTransformer3DModel, ReferenceDiT]:
    model = WanTransformer3DModel(**known_arguments(WanTransformer3DModel, config))
    model.load_state_dict(state)
    return model, ReferenceDiT(model.eval(), CPU, weights="golden")


def make_vae(config, state) -> Vae:
    model = AutoencoderKLWan(**known_arguments(AutoencoderKLWan, config))
    model.load_state_dict(state)
    return Vae(model.eval(), CPU)


def to_image(pixels_CYX: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels_CYX.permute(1, 2, 0).numpy())


def to_levels(image_CYX: torch.Tensor) -> torch.Tensor:
    """[-1, 1] back to exact 8-bit levels; fails when a value is not one of them."""
    levels = (image_CYX + 1) * 127.5
    assert float((levels - levels.round()).abs().max()) < 1e-3
    return levels.round().to(torch.uint8)


@parametrize("r2v_transformer")
def test_golden_transformer(case):
    tensors = case.tensors()
    model, dit = make_dit(case.config["config"], weights(tensors))
    velocity = dit.forward(
        tensors["in.latents"], tensors["in.ref_latents"], tensors["in.timestep"], tensors["in.encoder_hidden_states"]
    )
    difference = max_diff(velocity, tensors["out.velocity"])
    log.info("max_diff %.3g", difference)
    assert difference <= 5e-5

    cos, sin = model.rope(torch.cat([tensors["in.latents"], tensors["in.ref_latents"]], dim=2))
    rope = torch.stack([cos[..., 0::2], sin[..., 0::2]], dim=-1)
    expected = tensors["out.rope"]
    assert max_diff(rope.reshape(expected.shape), expected) <= 1e-6


@parametrize("wan_vae")
def test_golden_vae(case):
    config, tensors = case.config, case.tensors()
    original = config["config"]
    options = {**original, "base_dim": original["dim"], "latents_mean": config["mean"], "latents_std": config["std"]}
    vae = make_vae(options, keymaps.wan_vae(weights(tensors), original["num_res_blocks"]))

    mean, _ = vae.encode(tensors["in.video"])
    encoded = max_diff(vae.scale.normalise(mean), tensors["out.encoded"])
    frames = torch.cat(list(vae.decode_float(Latents(tensors["in.latent"]))), dim=2)
    decoded = max_diff(frames * 2 - 1, tensors["out.decoded_clamped"])
    log.info("max_diff_encoded %.3g", encoded)
    log.info("max_diff_decoded %.3g", decoded)
    assert encoded <= 5e-5
    assert decoded <= 5e-5


@parametrize("umt5")
def test_golden_umt5(case):
    config, tensors = case.config, case.tensors()
    original = config["config"]
    model = UMT5EncoderModel(
        UMT5Config(
            vocab_size=original["vocab"],
            d_model=original["dim"],
            d_kv=original["dim_attn"] // original["num_heads"],
            d_ff=original["dim_ffn"],
            num_layers=original["num_layers"],
            num_heads=original["num_heads"],
            relative_attention_num_buckets=original["num_buckets"],
            relative_attention_max_distance=config["max_dist"],
        )
    )
    state = keymaps.umt5(weights(tensors))
    model.load_state_dict({**state, "encoder.embed_tokens.weight": state["shared.weight"]})
    tokenizer = Tokenizer(models.Unigram([("<pad>", 0.0)]))
    encoder = TextEncoder(model.eval(), tokenizer, CPU)
    embeds = encoder.embed(tensors["in.ids"], tensors["in.mask"])
    difference = max_diff(embeds, tensors["out.embeds"])
    log.info("max_diff %.3g", difference)
    assert difference <= 5e-5
    assert not embeds[tensors["in.mask"] == 0].any()


@parametrize("scheduler_r2v_unipc")
def test_golden_sampler(case):
    config, tensors = case.config, case.tensors()
    sampler = FlowUniPC(config["steps"], config["flow_shift"], config["init"]["num_train_timesteps"])
    assert list(sampler.timesteps) == tensors["out.timesteps"].tolist()
    assert max_diff(sampler.sigmas, tensors["out.sigmas"]) <= 1e-6
    sample, worst = tensors["in.sample"], 0.0
    for velocity, expected in zip(tensors["in.model_outputs"], tensors["out.trajectory"], strict=True):
        sample = sampler.step(velocity, sample)
        worst = max(worst, max_diff(sample, expected))
    log.info("max_diff %.3g", worst)
    assert worst <= 1e-4


@parametrize("preproc")
def test_golden_letterbox(case):
    tensors, (height, width) = case.tensors(), case.config["ref_target"]
    got = letterbox(to_image(tensors["in.image"]), height, width)
    assert torch.equal(to_levels(got), tensors["out.r2v_image"])


@parametrize("preproc_buckets")
def test_golden_buckets(case):
    rows = case.config["table"]
    assert rows
    for row in rows:
        for family in ("480P", "540P", "720P"):
            size = plans.bucket(family, row["height"], row["width"])
            assert list(size) == row[f"v3_{family}"], (family, row["height"], row["width"])


@parametrize("e2e_r2v")
def test_golden_whole_run(case):
    config, tensors = case.config, case.tensors()
    _, dit = make_dit(config["transformer"], _part(tensors, "transformer"))
    vae = make_vae(config["vae"], _part(tensors, "vae"))
    height, width = config["height"], config["width"]

    images = []
    for index in range(config["n_refs"]):
        image = letterbox(to_image(tensors[f"in.ref_raw.{index}"]), height, width)
        assert torch.equal(to_levels(image), tensors[f"in.ref_resized.{index}"])
        images.append(image)
    spec = DenoiseSpec(
        height=height,
        width=width,
        latent_frames=plans.latent_frames(config["num_frames"]),
        steps=config["steps"],
        seed=config["seed"],
        flow_shift=config["flow_shift"],
        guidance=config["guidance_scale"],
        guidance_image=config["guidance_scale_img"],
    )
    context = TextContext(tensors["in.prompt_embeds"], tensors["in.negative_prompt_embeds"])
    denoiser = Denoiser(ReferenceTask(dit, vae.scale))
    run = denoiser.begin(spec, context, vae.encode_references(torch.stack(images)))
    while not run.done:
        denoiser.step(run)
    latents = denoiser.finish(run)
    difference = max_diff(latents.video_BCTHW, tensors["out.latents"])
    log.info("max_diff_latents %.3g", difference)
    assert difference <= 1e-3

    expected_BFCYX = tensors["out.frames"]
    frames_BFCYX = torch.cat(list(vae.decode_float(latents)), dim=2).transpose(1, 2)
    difference = max_diff(frames_BFCYX, expected_BFCYX)
    log.info("max_diff_frames %.3g", difference)
    assert difference <= 1e-3
    levels_FYXC = torch.from_numpy(np.concatenate(list(vae.decode(latents))))
    expected_FYXC = expected_BFCYX[0].permute(0, 2, 3, 1).mul(255).round()
    assert max_diff(levels_FYXC, expected_FYXC) <= 1


def _part(tensors, name):
    """The weights of one component; recorded as `w.<name>.*`."""
    part = weights(tensors, f"w.{name}.")
    if not part:
        pytest.fail(f"the case has no weights of {name}")
    return part
