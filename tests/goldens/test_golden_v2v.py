"""The extension numerics against the original's, module by module and whole. fp32 on CPU.

Tolerances are maximal absolute differences.
"""

import logging

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from cluster import plans
from components.checkpoints import known_arguments
from components.denoiser import Denoiser, DenoiseSpec, ExtensionTask, ShotTask
from components.device import Placement
from components.dit import ExtensionDiT
from components.dit.extension import TimedRope, on_meta_of
from components.dit.wan import original_name
from components.media.source import resize
from components.sampler import FlowUniPC
from components.vae import Vae, levels
from components.values import PrefixCondition, TextContext
from tests.goldens import keymaps
from tests.goldens.cases import max_diff, parametrize, weights

CPU = Placement.of("cpu")
log = logging.getLogger("goldens")


def make_dit(config, state, *, shot) -> ExtensionDiT:
    model = on_meta_of(config, "golden").to_empty(device="cpu")
    model.load_state_dict({name: state[original_name(name)] for name in model.state_dict()})
    assert len(state) == len(model.state_dict())
    model.rope = TimedRope(model.config.attention_head_dim, model.config.patch_size)
    return ExtensionDiT(model.eval(), CPU, shot=shot, weights="golden")


@parametrize("v2v_transformer")
def test_golden_transformer(case):
    config, tensors = case.config, case.tensors()
    dit = make_dit(config["config"], weights(tensors), shot=config["mode"] == "shot")
    velocity = dit.forward(tensors["in.noisy"], tensors["in.condition"], config["t"], tensors["in.context"])
    difference = max_diff(velocity, tensors["out.velocity"])
    log.info("max_diff %.3g", difference)
    assert difference <= 1e-4


@parametrize("scheduler_flow_unipc")
def test_golden_sampler(case):
    config, tensors = case.config, case.tensors()
    sampler = FlowUniPC(config["steps"], config["shift"])
    assert list(sampler.timesteps) == tensors["out.timesteps"].tolist()
    assert max_diff(sampler.sigmas, tensors["out.sigmas"]) <= 1e-6
    sample, worst = tensors["in.sample"], 0.0
    for velocity, expected in zip(tensors["in.model_outputs"], tensors["out.trajectory"], strict=True):
        sample = sampler.step(velocity, sample)
        worst = max(worst, max_diff(sample, expected))
    log.info("max_diff %.3g", worst)
    assert worst <= 1e-4


@parametrize("preproc")
def test_golden_prefix(case):
    tensors, (height, width) = case.tensors(), case.config["v2v_bucket"]
    got_FYXC = np.stack([resize(frame, height, width) for frame in tensors["in.video"].numpy()])
    got_BCFYX = torch.from_numpy(got_FYXC).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
    assert max_diff(got_BCFYX, tensors["out.v2v_prefix"]) <= 1e-5


@parametrize("preproc")
def test_golden_levels(case):
    tensors = case.tensors()
    got_FYXC = levels(tensors["out.colour_matched"] / 2 + 0.5, truncate=True)
    assert torch.equal(torch.from_numpy(got_FYXC), tensors["out.uint8"][0].permute(1, 2, 3, 0))


@parametrize("plans")
def test_golden_plans(case):
    for row in case.config["extension"]:
        rolls = plans.extension_rolls(row["duration"])
        assert [roll.new_latents for roll in rolls] == row["new_latents"]
        assert [roll.new_latents + roll.prefix_latents for roll in rolls] == row["total_latents"]
        assert [roll.kept_frames for roll in rolls] == row["out_frames"]
        assert plans.extension_frames(row["duration"]) == pytest.approx(row["seconds"] * 24)
    for duration, row in case.config["shot_switching"].items():
        roll = plans.shot_roll(int(duration))
        assert roll.prefix_frames == row["cond_frames"]
        assert (roll.prefix_latents, roll.new_latents) == (row["cond_latents"], row["new_latents"])
        assert roll.decoded_frames == roll.kept_frames == row["out_frames"]


@parametrize("e2e_v2v")
def test_golden_whole_run(case):
    config, tensors = case.config, case.tensors()
    shot = config["mode"] == "shot"
    dit = make_dit(config["transformer"], weights(tensors, "w.transformer."), shot=shot)
    options = {**config["vae"], "base_dim": config["vae"]["dim"]}
    model = AutoencoderKLWan(**known_arguments(AutoencoderKLWan, options))
    model.load_state_dict(keymaps.wan_vae(weights(tensors, "w.vae."), config["vae"]["num_res_blocks"]))
    vae = Vae(model.eval(), CPU)
    denoiser = Denoiser((ShotTask if shot else ExtensionTask)(dit))
    context = TextContext(tensors["in.context"], tensors["in.context"][:, :0])
    rolls = [plans.shot_roll(config["duration"])] if shot else plans.extension_rolls(config["duration"])

    mean, _ = vae.encode(tensors["in.prefix"])
    condition = PrefixCondition(vae.scale.normalise(mean))
    result = []
    for index, roll in enumerate(rolls):
        assert condition.latents_BCTHW.shape[2] == roll.prefix_latents
        spec = DenoiseSpec(
            height=config["height"],
            width=config["width"],
            latent_frames=roll.new_latents,
            steps=config["steps"],
            seed=config["seed"],
            flow_shift=config["shift"],
        )
        run = denoiser.begin(spec, context, condition)
        while not run.done:
            denoiser.step(run)
        latents = denoiser.finish(run)
        difference = max_diff(latents.video_BCTHW[0], tensors[f"out.decoded_latents.{index}"])
        log.info("max_diff_latents.%d %.3g", index, difference)
        assert difference <= 1e-3
        frames_FYXC = np.concatenate(list(vae.decode(latents, truncate=True)))
        assert len(frames_FYXC) == roll.decoded_frames
        result.append(frames_FYXC[roll.dropped_frames :])
        condition = vae.encode_prefix(torch.from_numpy(frames_FYXC[-plans.EXTENSION_PREFIX :].copy()))
    frames_FYXC = np.concatenate(result)
    assert list(frames_FYXC.shape) == config["frames"]
    assert max_diff(torch.from_numpy(frames_FYXC[:: config["frames_stride"]].copy()), tensors["out.frames"]) <= 1
