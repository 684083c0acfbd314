"""The talking avatar's numerics against the original's, module by module and whole. fp32 on CPU.

Tolerances are maximal absolute differences. Everything a test needs comes out of the case's own files.
"""

import logging

import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from torch.nn.functional import pad
from transformers import Wav2Vec2Config, Wav2Vec2Model

from cluster import plans
from cluster.windows import LATENT_FRAMES, MOTION_FRAMES, WINDOW_FRAMES, sound_index, windows
from components import audio, vision
from components.audio import window as hear
from components.checkpoints import fill_strict, known_arguments
from components.colour import ColourMatch, to_levels
from components.denoiser import AvatarSpec, AvatarTask, Denoiser
from components.device import Placement
from components.dit import wan
from components.dit.avatar import AvatarDiT, AvatarTransformer
from components.dit.speech import AudioOptions, AudioProjection
from components.euler import FlowEuler
from components.image import cover
from components.known import encode_known
from components.vae import Vae
from components.values import AudioFeatures, ImageTokens, Pixels, RandomState, Regions, TextContext
from tests.goldens import keymaps
from tests.goldens.cases import max_diff, parametrize, weights

CPU = Placement.of("cpu")
log = logging.getLogger("goldens")  # --log-cli-level=INFO shows the measured differences


def make_dit(config, state, layers, width, image_dim) -> AvatarDiT:
    """Sizes that the release fixes in code come from the inputs."""
    config = {**config, "audio_blocks": layers, "audio_channels": width, "img_dim": image_dim}
    model = AvatarTransformer(wan.original_options(config, "golden"), AudioOptions.of(config))
    names = {name: wan.original_name(name) for name in model.state_dict()}
    assert set(names.values()) == set(state)
    model.load_state_dict({name: state[original] for name, original in names.items()})
    return AvatarDiT(model.eval(), CPU, weights="golden")


def padded(context_LD, rows):
    return pad(context_LD, (0, 0, 0, rows - context_LD.shape[0]))[None]


def forward(dit, config, tensors):
    return dit.forward(
        tensors["in.latent"][None],
        tensors["in.y"],
        float(tensors["in.timestep"]),
        padded(tensors["in.context"], config["text_len"]),
        tensors["in.clip_fea"],
        tensors["in.audio"],
        tensors["in.ref_target_masks"],
    )


def dit_of(case) -> AvatarDiT:
    tensors = case.tensors()
    layers, width = tensors["in.audio"].shape[-2:]
    return make_dit(case.config["config"], weights(tensors), layers, width, tensors["in.clip_fea"].shape[-1])


@parametrize("a2v_transformer")
def test_golden_transformer(case):
    tensors, config, dit = case.tensors(), case.config["config"], dit_of(case)
    seen, block = {}, dit.model.blocks[0]
    for name, module in (("self_attn0", block.attn1), ("audio_cross_attn0", block.audio_cross_attn), ("block0", block)):
        module.register_forward_hook(lambda _module, _args, output, name=name: seen.update({name: output}))
    velocity = forward(dit, config, tensors)
    differences = {name: max_diff(got, tensors[f"out.{name}"]) for name, got in seen.items()}
    differences["velocity"] = max_diff(velocity[0], tensors["out.velocity"])
    log.info("max_diff %s", differences)
    assert len(differences) == 4
    assert max(differences.values()) <= 1e-4


@parametrize("audio_proj")
def test_golden_audio_projection(case):
    config, tensors = case.config, case.tensors()
    options = AudioOptions(
        window=config["window"],
        stride=config["window_later"] - config["window"] + 1,
        inner=config["intermediate"],
        tokens=config["context_tokens"],
        out=config["output_dim"],
        norm_rows=True,
        norm_audio=config["norm"],
        layers=config["blocks"],
        width=config["channels"],
    )
    projection = AudioProjection(options)
    projection.load_state_dict(weights(tensors))
    first, later = projection.windows(tensors["in.audio"])
    assert torch.equal(first, tensors["out.first_window"])
    assert torch.equal(later, tensors["out.later_window"])
    with torch.no_grad():
        assert max_diff(projection(tensors["in.audio"]), tensors["out.tokens"]) <= 1e-5


@parametrize("scheduler_a2v_euler")
def test_golden_sampler(case):
    config, tensors = case.config, case.tensors()
    sampler = FlowEuler(config["steps"], config["shift"])
    assert max_diff(torch.tensor([*sampler.timesteps, 0.0]), tensors["out.timesteps"]) <= 1e-3
    sample, worst = tensors["in.sample"], 0.0
    for velocity, expected in zip(tensors["in.model_outputs"], tensors["out.trajectory"], strict=True):
        sample = sampler.step(velocity, sample)
        worst = max(worst, max_diff(sample, expected))
    log.info("max_diff %.3g", worst)
    assert worst <= 1e-5


@parametrize("preproc")
def test_golden_image_and_colours(case):
    tensors, (height, width) = case.tensors(), case.config["avatar_target"]
    image = Image.fromarray(tensors["in.image"].permute(1, 2, 0).numpy())
    levels = (cover(image, height, width) + 1) * 127.5
    assert max_diff(levels, tensors["out.avatar_image"][0, :, 0]) <= 1e-3

    matched = ColourMatch(tensors["in.ref"][0, :, 0]).match(tensors["in.src"][0])
    difference = max_diff(matched, tensors["out.colour_matched"][0])
    log.info("max_diff %.3g", difference)
    assert difference <= 1e-5
    assert torch.equal(to_levels(tensors["out.colour_matched"][0]), tensors["out.uint8"][0])


@parametrize("preproc")
def test_golden_frames_of_sound(case):
    config, expected = case.config, case.tensors()["out.audio_index"]
    features = torch.arange(config["n_audio"], dtype=torch.float32)
    start, clip = config["audio_start"], config["clip"]
    frames = torch.arange(start, start + clip)[:, None] + torch.arange(-2, 3)
    heard = hear(AudioFeatures(features[None, :, None, None]), frames.clamp(0, len(features) - 1).tolist())
    assert torch.equal(heard.heard_PFWNE[0, :, :, 0, 0].long(), expected)


@parametrize("preproc_buckets")
def test_golden_buckets(case):
    for row in case.config["table"]:
        for family in ("480P", "720P"):
            size = plans.bucket(family, row["height"], row["width"], plans.PORTRAITS)
            assert list(size) == row[f"avatar_{family}"], (family, row["height"], row["width"])


@parametrize("plans")
def test_golden_windows(case):
    assert case.config["avatar"]
    for row in case.config["avatar"]:
        first, *others = windows(row["audio_frames"])
        assert first.index == 0
        assert len(others) == row["windows"] == row["passes"] - 1
        assert [window.start for window in others] == row.get("window_starts", [])
        assert [window.key_frame for window in others] == row["keyframes"]
        assert (others[-1] if others else first).start + WINDOW_FRAMES == row["total"]
        assert sum(window.kept for window in (first, *others)) == row["audio_frames"]


@parametrize("e2e_a2v")
def test_golden_whole_film(case):
    config, tensors, arguments = case.config, case.tensors(), case.config["args"]
    layers, width = tensors["in.audio"].shape[1:]
    state = weights(tensors, "w.transformer.")
    dit = make_dit(config["transformer"], state, layers, width, tensors["in.clip_base"].shape[-1])
    options = {**config["vae"], "base_dim": config["vae"]["dim"]}
    model = AutoencoderKLWan(**known_arguments(AutoencoderKLWan, options))
    model.load_state_dict(keymaps.wan_vae(weights(tensors, "w.vae."), config["vae"]["num_res_blocks"]))
    vae, denoiser = Vae(model.eval(), CPU), Denoiser(AvatarTask(dit))

    image = Image.fromarray(tensors["in.image"].permute(1, 2, 0).numpy())
    source = cover(image, *config["image_bucket"])[:, None]
    prompt, negative, connection = (padded(row, config["transformer"]["text_len"]) for row in tensors["in.contexts"])
    spec = AvatarSpec(
        height=config["image_bucket"][0],
        width=config["image_bucket"][1],
        latent_frames=LATENT_FRAMES,
        steps=arguments["sampling_steps"],
        seed=arguments["seed"],
        flow_shift=arguments["shift"],
        guidance=arguments["text_guide_scale"],
        guidance_audio=arguments["audio_guide_scale"],
    )
    features, colours = AudioFeatures(tensors["in.audio"][None]), ColourMatch(source[:, 0])
    random, first, film, keys = RandomState.fresh(), Pixels(source), [], None
    calls = corners = 0
    for window in windows(config["nframes"]):
        key = None if window.key_frame is None else Pixels(keys[:, window.key_frame : window.key_frame + 1])
        condition = encode_known(vae, first, key, WINDOW_FRAMES)
        seen = tensors["in.clip_base"] + first.pixels_CFYX[:, :1].mean() * tensors["in.clip_dir"]
        run = denoiser.begin(
            spec,
            TextContext(connection if window.index else prompt, negative),
            hear(features, sound_index(window, config["nframes"])),
            ImageTokens(seen),
            condition,
            Regions.none(),
            random,
        )
        forwards = 1 + (spec.guidance > 1) + (spec.guidance_audio > 1)
        while not run.done:
            assert torch.equal(condition.known_BCTHW[0, :4, :, 0, 0], tensors["out.masks"][calls])
            corners = max(corners, max_diff(run.latents_BCTHW[0, :, :, :2, :2], tensors["out.x_corner"][calls]))
            denoiser.step(run)
            calls += forwards
        frames = torch.cat(list(vae.decode_float(denoiser.finish(run))), dim=2)[0] * 2 - 1
        frames = colours.match(frames)
        if window.index == 0:
            keys = frames
        film.append(to_levels(frames[:, window.keep_from : window.keep_to]))
        if window.hands_on:
            first = Pixels(frames[:, window.hand_from : window.hand_from + MOTION_FRAMES])
        random = RandomState.of(run.generator)
    log.info("max_diff_latents %.3g", corners)
    assert calls == config["model_calls"]
    assert corners <= 1e-3
    whole_FYXC = torch.cat(film, dim=1).permute(1, 2, 3, 0)
    assert list(whole_FYXC.shape) == config["frames"]
    difference = max_diff(whole_FYXC[:: config["frames_stride"]], tensors["out.frames"])
    log.info("max_diff_frames %g", difference)
    assert difference <= 2


@parametrize("clip_vision")
def test_golden_vision(case):
    config, tensors = case.config["config"], case.tensors()
    state = weights(tensors)
    model = vision.on_meta(state, "golden", heads=config["num_heads"])
    assert model.config.image_size == config["image_size"]
    fill_strict(model, vision.rearranged(state), "golden", device=CPU.device, dtype_of=lambda _: torch.float32)
    encoder = vision.VisionEncoder(vision.with_positions(model, CPU.device), CPU)
    pixels = encoder.preprocess(tensors["in.image"][:, :, 0])
    assert max_diff(pixels, tensors["out.pixels"]) <= 5e-5
    assert max_diff(encoder.embed(pixels), tensors["out.tokens"]) <= 5e-5


@parametrize("wav2vec")
def test_golden_audio(case):
    tensors = case.tensors()
    model = Wav2Vec2Model(Wav2Vec2Config.from_dict(case.config["config"])).eval()
    model.load_state_dict(weights(tensors))
    encoder = audio.AudioEncoder(model, CPU)
    wave = tensors["in.wave"].numpy()
    assert audio.frames_of(len(wave)) == case.config["frames"]
    assert max_diff(torch.from_numpy(audio.standardised(wave)), tensors["in.input_values"]) <= 1e-5
    embedding = encoder.embed(tensors["in.input_values"])
    difference = max_diff(embedding, tensors["out.embedding"])
    log.info("max_diff %.3g", difference)
    assert difference <= 5e-5
    frames = torch.arange(len(embedding))[:, None] + torch.arange(-2, 3)
    heard = audio.window(AudioFeatures(embedding[None]), frames.clamp(0, len(embedding) - 1).tolist())
    assert max_diff(heard.heard_PFWNE[0], tensors["out.window"]) <= 5e-5
