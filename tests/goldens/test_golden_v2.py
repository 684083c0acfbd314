"""The numerics of V2 against the original's, module by module and whole. fp32 on CPU.

Tolerances are maximal absolute differences. Everything a test needs comes out of the case's own files.
"""

import logging
from dataclasses import replace

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from components.checkpoints import known_arguments
from components.denoiser import Denoiser, ForcingSpec, ForcingTask
from components.device import Placement
from components.dit import wan
from components.dit.v2 import ClipDiT, ForcingDiT, on_meta_of
from components.forcing import ForcingUniPC, schedule
from components.sampler import FlowUniPC
from components.vae import Vae, levels
from components.values import EndsCondition, RandomState, TextContext
from tests.goldens import keymaps
from tests.goldens.cases import max_diff, parametrize, weights

CPU = Placement.of("cpu")
log = logging.getLogger("goldens")


def make_dit(kind, config, state, image_dim=1280):
    """`image_dim` is fixed in the release's code."""
    model = on_meta_of({**config, "img_dim": image_dim}, "golden", original=True).to_empty(device="cpu")
    names = {name: wan.original_name(name) for name in model.state_dict()}
    assert set(names.values()) == set(state)
    model.load_state_dict({name: state[original] for name, original in names.items()})
    wan.place_rope(model, CPU.device)
    return kind(model.eval(), CPU, weights="golden")


@parametrize("v2_transformer")
def test_golden_transformer(case):
    config, tensors = case.config, case.tensors()
    forcing = config["kind"].startswith("df")
    kind = ForcingDiT if forcing else ClipDiT
    dit = make_dit(kind, config["config"], weights(tensors), config["img_dim"])
    if forcing:
        velocity = dit.forward(
            tensors["in.latent"],
            tensors["in.timestep"][0].tolist(),
            tensors["in.context"],
            block_frames=config["causal_block"] or 1,
            fps=16 if config["fps_index"] == 0 else 24,
        )
    else:
        velocity = dit.forward(
            tensors["in.latent"],
            float(tensors["in.timestep"]),
            tensors["in.context"],
            tensors.get("in.y"),
            tensors.get("in.clip_fea"),
        )
    difference = max_diff(velocity, tensors["out.velocity"])
    log.info("max_diff %.3g", difference)
    assert difference <= 5e-5


def toy_velocity(plan, sample, iteration):
    """0.5 x + 0.001 t with each frame's own t."""
    times = torch.tensor(plan.timesteps[iteration], dtype=torch.float32)
    return 0.5 * sample + 0.001 * times[None, None, :, None, None]


@parametrize("df_matrix")
def test_golden_schedule_and_sampler(case):
    config, tensors = case.config, case.tensors()
    timesteps = FlowUniPC(config["steps"], config["shift"]).timesteps
    assert list(timesteps) == tensors["in.step_template"].tolist()
    plan = schedule(
        timesteps,
        config["latent_frames"],
        lag=config["ar_step"],
        block=config["causal_block_size"],
        ready=config["num_pre_ready"],
        window=config["base_num_frames"],
    )
    assert len(plan) == config["rows"]
    assert torch.equal(torch.tensor(plan.timesteps), tensors["out.step_matrix"])
    assert torch.equal(torch.tensor(plan.places), tensors["out.step_index"])
    assert torch.equal(torch.tensor(plan.updated).to(torch.uint8), tensors["out.update_mask"])
    assert torch.equal(torch.tensor(plan.windows), tensors["out.valid_interval"])
    sampler, sample = ForcingUniPC(config["steps"], config["shift"], plan), tensors["in.start"][None]
    for iteration in sampler.timesteps:
        sample = sampler.step(toy_velocity(plan, sample, iteration), sample)
    difference = max_diff(sample[0], tensors["out.final"])
    log.info("max_diff %.3g", difference)
    assert difference <= 1e-4


@parametrize("e2e_df")
def test_golden_whole_film(case):
    config, tensors, arguments = case.config, case.tensors(), case.config["args"]
    dit = make_dit(ForcingDiT, config["transformer"], weights(tensors, "w.transformer."))
    options = {**config["vae"], "base_dim": config["vae"]["dim"]}
    model = AutoencoderKLWan(**known_arguments(AutoencoderKLWan, options))
    model.load_state_dict(keymaps.wan_vae(weights(tensors, "w.vae."), config["vae"]["num_res_blocks"]))
    vae, denoiser = Vae(model.eval(), CPU), Denoiser(ForcingTask(dit))
    context = TextContext(tensors["in.prompt"], tensors["in.negative"])

    def encoded(pixels_CFYX):
        return vae.scale.normalise(vae.encode(pixels_CFYX[None])[0])

    def image(name):
        return encoded(tensors[name].float()[:, None] / 127.5 - 1)

    none = torch.zeros((1, 16, 0, arguments["height"] // 8, arguments["width"] // 8))
    first = image("in.image") if config["image"] else none
    total = (arguments["num_frames"] - 1) // 4 + 1
    overlap, base = arguments["overlap_history"], (arguments["base_num_frames"] - 1) // 4 + 1
    if overlap is None or total <= base:
        chunks, window = [total], base
    else:
        shared, window = (overlap - 1) // 4 + 1, None
        chunks = [base]
        while (made := sum(chunks) - shared * (len(chunks) - 1)) < total:
            chunks.append(min(total - made + shared, base))
    block = config["causal_block"]
    everyday = torch.Generator().manual_seed(
        config["global_seed"]
    )  # where the original draws the noise of known frames
    random, film = RandomState.fresh(), None
    for index, count in enumerate(chunks):
        last = image("in.end_image") if config["end_image"] and index == len(chunks) - 1 else none
        if film is not None:
            first = encoded(film[:, -overlap:])
            first = first[:, :, : first.shape[2] // block * block]
        spec = ForcingSpec(
            height=arguments["height"],
            width=arguments["width"],
            latent_frames=count,
            steps=arguments["num_inference_steps"],
            seed=config["seed"],
            flow_shift=arguments["shift"],
            guidance=arguments["guidance_scale"],
            fps=arguments["fps"],
            lag=arguments["ar_step"],
            block=block,
            known_timestep=arguments["addnoise_condition"],
            known=first.shape[2],
            held=last.shape[2],
            window=window + last.shape[2] if window is not None else None,
        )
        run = denoiser.begin(spec, context, EndsCondition(first, last), random)
        random = RandomState.of(run.generator)
        run.flow = replace(run.flow, generator=everyday)
        while not run.done:
            denoiser.step(run)
        latents = denoiser.finish(run)
        difference = max_diff(latents.video_BCTHW, tensors[f"out.latents.{index}"])
        log.info("max_diff_latents.%d %.3g", index, difference)
        assert difference <= 1e-3
        frames = torch.cat(list(vae.decode_float(latents)), dim=2)[0] * 2 - 1
        film = frames if film is None else torch.cat([film, frames[:, overlap:]], dim=1)
    levels_FYXC = levels(film[None] / 2 + 0.5, truncate=True)
    assert list(levels_FYXC.shape) == config["frames"]
    assert max_diff(torch.from_numpy(np.ascontiguousarray(levels_FYXC)), tensors["out.frames"]) <= 1
