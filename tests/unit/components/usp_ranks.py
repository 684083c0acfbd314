"""What ranks do in the tests of sequence parallelism. Every function takes the rank's state first."""

import os
import signal
from functools import partial

import numpy as np
import torch
from diffusers import WanTransformer3DModel

from components.denoiser import Denoiser, ForcingTask, HunyuanImageTask, ReferenceTask
from components.device import Placement
from components.dit import ExtensionDiT, ReferenceDiT
from components.dit.hunyuan import HunyuanDiT
from components.dit.v2 import ClipDiT, ForcingDiT
from components.usp import BranchParallel, Meshes, SequenceParallel, highest, vote
from components.vae import LatentScale
from components.values import (
    Condition,
    EndsCondition,
    FirstFrame,
    PooledContext,
    RandomState,
    TextContext,
)

HEAD_WIDTH = 12
CHANNELS = 4


def tiny_model(heads: int) -> WanTransformer3DModel:
    """Two blocks with the released structure, the same weights in every process."""
    torch.manual_seed(heads)
    model = WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=HEAD_WIDTH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=8,
        freq_dim=16,
        ffn_dim=16,
        num_layers=2,
        rope_max_seq_len=32,
    )
    return model.eval()


@torch.no_grad()
def velocity(model, frames, height, width, references=4, batch=1) -> np.ndarray:
    """One forward on inputs that depend on nothing but the arguments. Sizes in latents; four slots, the rest zero."""
    generator = torch.Generator().manual_seed(frames * 10_000 + height * 100 + width)
    hidden_BCTHW = torch.randn((batch, CHANNELS, frames + 4, height, width), generator=generator)
    hidden_BCTHW[:, :, frames + references :] = 0
    context_BLD = torch.randn((batch, 6, 8), generator=generator)
    (velocity_BCTHW,) = model(
        hidden_states=hidden_BCTHW,
        timestep=torch.full((batch,), 700.0),
        encoder_hidden_states=context_BLD,
        return_dict=False,
    )
    return velocity_BCTHW[:, :, :frames].numpy()


def meshes(state) -> Meshes:
    """This world's, built once."""
    if "meshes" not in state:
        state["meshes"] = Meshes("cpu", state["timeout_s"])
    return state["meshes"]


def prepared(state, heads) -> tuple[WanTransformer3DModel, SequenceParallel]:
    """This rank's model of so many heads, made once."""
    if heads not in state:
        model = tiny_model(heads)
        state[heads] = model, SequenceParallel(model, meshes(state))
    return state[heads]


def forward(state, heads, layout, sizes) -> list[np.ndarray]:
    """One forward per size under a layout."""
    model, shared = prepared(state, heads)
    shared.use(layout)
    return [velocity(model, *size) for size in sizes]


def forward_through(state, heads, layouts, size) -> list[np.ndarray]:
    """One forward per layout, changing between them."""
    return [forward(state, heads, layout, [size])[0] for layout in layouts]


def use(state, heads, layout) -> None:
    prepared(state, heads)[1].use(layout)


def use_backend(state, heads, layout, backend) -> None:
    model = tiny_model(heads)
    for block in model.blocks:
        block.attn1.processor._attention_backend = backend
    SequenceParallel(model, meshes(state)).use(layout)


def use_engine(state, heads, layout, engine) -> None:
    SequenceParallel(tiny_model(heads), meshes(state), engine).use(layout)


def pieces(state, heads) -> tuple[list[str], int]:
    """What is installed on the model: the processors' types and the number of hooks."""
    model, _ = prepared(state, heads)
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    return [type(block.attn1.processor).__name__ for block in model.blocks], hooks


def token_times(state, heads, layout) -> None:
    """A timestep per token, as other models of the family have."""
    model, shared = prepared(state, heads)
    shared.use(layout)
    with torch.no_grad():
        model(
            hidden_states=torch.zeros(1, CHANNELS, 4, 2, 2),
            timestep=torch.zeros(1, 4),
            encoder_hidden_states=torch.zeros(1, 6, 8),
            return_dict=False,
        )


def masked(state, heads, layout) -> None:
    model, shared = prepared(state, heads)
    shared.use(layout)
    attention = model.blocks[0].attn1
    attention(torch.zeros(1, 4, heads * HEAD_WIDTH), None, torch.ones(1, 4))


def denoise(state, root, spec, layouts) -> np.ndarray:
    """A whole run, each step under the next layout, carried through a snapshot between any two steps."""
    context, condition = denoise_inputs(spec)
    dit = ReferenceDiT.load(root, Placement.of("cpu"))
    denoiser = Denoiser(ReferenceTask(dit, LatentScale.load(root)))
    shared = SequenceParallel(dit.model, meshes(state))
    run = denoiser.begin(spec, context, condition)
    while not run.done:
        shared.use(layouts[run.step % len(layouts)])
        denoiser.step(run)
        run = denoiser.restore(denoiser.snapshot(run), spec, context, condition)
    return denoiser.finish(run).video_BCTHW.numpy()


def branches(state, heads, inner, whole, sizes) -> list[np.ndarray]:
    """One branch per size, evaluated on groups of ranks."""
    model, shared = prepared(state, heads)
    evaluate = BranchParallel(shared, meshes(state), inner=inner, whole=whole)
    # Branches of a step have one shape: the results are laid side by side in the largest.
    shape = np.max([(size[0], size[1], size[2]) for size in sizes], axis=0)

    def branch(size) -> torch.Tensor:
        padded = torch.zeros((1, CHANNELS, *shape))
        padded[:, :, : size[0], : size[1], : size[2]] = torch.from_numpy(velocity(model, *size))
        return padded

    results = evaluate([partial(branch, size) for size in sizes])
    return [r[:, :, :f, :h, :w].numpy() for r, (f, h, w, _) in zip(results, sizes, strict=True)]


def denoise_branches(state, root, spec, inner, whole) -> np.ndarray:
    """A whole run with the branches of every step on groups of ranks."""
    context, condition = denoise_inputs(spec)
    dit = ReferenceDiT.load(root, Placement.of("cpu"))
    evaluate = BranchParallel(SequenceParallel(dit.model, meshes(state)), meshes(state), inner=inner, whole=whole)
    denoiser = Denoiser(ReferenceTask(dit, LatentScale.load(root)), evaluate)
    run = denoiser.begin(spec, context, condition)
    while not run.done:
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW.numpy()


def denoise_inputs(spec) -> tuple[TextContext, Condition]:
    """A prompt and two references of four, so that two slots are zero."""
    generator = torch.Generator().manual_seed(3)
    prompt_BLD, negative_BLD = (torch.randn((1, 12, 32), generator=generator) for _ in range(2))
    mean_KCHW, logvar_KCHW = (torch.randn((2, 16, *spec.latent_size), generator=generator) for _ in range(2))
    return TextContext(prompt_BLD, negative_BLD), Condition(mean_KCHW, logvar_KCHW)


def vote_if(state, ranks) -> bool:
    return vote(state["rank"] in ranks)


def highest_of(state, words) -> int:
    return highest(words[state["rank"]])


def raise_on(state, rank, heads, layout) -> None:
    """One rank fails before it joins the forward the others are in."""
    model, shared = prepared(state, heads)
    shared.use(layout)
    if state["rank"] == rank:
        raise ArithmeticError("out of numbers")
    velocity(model, 2, 4, 4)


def die_on(state, rank, heads, layout) -> None:
    """One rank is killed while the others are in a forward."""
    model, shared = prepared(state, heads)
    shared.use(layout)
    if state["rank"] == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    velocity(model, 2, 4, 4)


def extension_inputs(made, given, height, width):
    """Latents of new and of source frames, a timestep and a context. Sizes in latents."""
    generator = torch.Generator().manual_seed(made * 10_000 + given * 1000 + height * 10 + width)
    shapes = ((1, 16, made, height, width), (1, 16, given, height, width), (1, 9, 32))
    new, source, context = (torch.randn(shape, generator=generator) for shape in shapes)
    return new, source, 700, context


def extend(state, root, shot, layouts, sizes) -> list[np.ndarray]:
    """One forward of an extension per layout and size."""
    if shot not in state:
        dit = ExtensionDiT.load(root, Placement.of("cpu"), shot=shot)
        state[shot] = dit, SequenceParallel(dit.model, meshes(state))
    dit, shared = state[shot]
    results = []
    for layout in layouts:
        shared.use(layout)
        results += [dit.forward(*extension_inputs(*size)).numpy() for size in sizes]
    return results


def force(state, root, layouts, cases) -> list[np.ndarray]:
    """One forward of diffusion forcing per layout and (frames, height, width, block). Sizes in latents."""
    if root not in state:
        dit = ForcingDiT.load(root, Placement.of("cpu"))
        state[root] = dit, SequenceParallel(dit.model, meshes(state))
    dit, shared = state[root]
    results = []
    for layout in layouts:
        shared.use(layout)
        for frames, height, width, block in cases:
            latents, _, _, context = extension_inputs(frames, 0, height, width)
            times = [40 * (frame // block) for frame in range(frames)]
            results.append(dit.forward(latents, times, context, block_frames=block).numpy())
    return results


def denoise_forcing(state, root, spec, layouts, branches=1) -> np.ndarray:
    """A whole run, each iteration under the next layout, or with its branches on groups of ranks."""
    denoiser = Denoiser(ForcingTask.load(root, Placement.of("cpu")))
    shared = SequenceParallel(denoiser.task.model, meshes(state))
    if branches > 1:
        denoiser.branches = BranchParallel(shared, meshes(state), inner=layouts[0], whole=layouts[1])
    run = denoiser.begin(spec, *forcing_inputs(spec))
    while not run.done:
        if branches == 1:
            shared.use(layouts[run.step % len(layouts)])
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW.numpy()


def forcing_inputs(spec) -> tuple[TextContext, EndsCondition, RandomState]:
    generator = torch.Generator().manual_seed(3)
    prompt_BLD, negative_BLD = (torch.randn((1, 12, 32), generator=generator) for _ in range(2))
    first, last = (
        torch.randn((1, 16, count, *spec.latent_size), generator=generator) for count in (spec.known, spec.held)
    )
    return TextContext(prompt_BLD, negative_BLD), EndsCondition(first, last), RandomState.fresh()


def joint_inputs(frames, height, width, text):
    """Latents, a timestep and a context of so many rows. Sizes in latents."""
    generator = torch.Generator().manual_seed(frames * 10_000 + height * 100 + width + text)
    shapes = ((1, 16, frames, height, width), (1, text, 64), (1, 24))
    latents, rows, pooled = (torch.randn(shape, generator=generator) for shape in shapes)
    return latents, 700.0, rows, pooled


def joint(state, root, layouts, sizes) -> list[np.ndarray]:
    """One forward of SkyReels V1 per layout and size."""
    if "joint" not in state:
        dit = HunyuanDiT.load(root, Placement.of("cpu"), image=False)
        state["joint"] = dit, SequenceParallel(dit.model, meshes(state))
    dit, shared = state["joint"]
    results = []
    for layout in layouts:
        shared.use(layout)
        results += [dit.forward(*joint_inputs(*size)).numpy() for size in sizes]
    return results


def first_frame_inputs(spec) -> tuple[PooledContext, FirstFrame]:
    """Prompts of different lengths and a picture."""
    generator = torch.Generator().manual_seed(4)
    shapes = ((1, 11, 64), (1, 24), (1, 3, 64), (1, 24))
    context = PooledContext(*(torch.randn(shape, generator=generator) for shape in shapes))
    mean, std = (torch.randn((1, 16, *spec.latent_size), generator=generator) for _ in range(2))
    return context, FirstFrame(mean, std.abs())


def denoise_first_frame(state, root, spec, layouts, inner=None) -> np.ndarray:
    """A whole run, each step under the next layout, or with its branches on groups of ranks."""
    inputs = first_frame_inputs(spec)
    denoiser = Denoiser(HunyuanImageTask.load(root, Placement.of("cpu")))
    shared = SequenceParallel(denoiser.task.model, meshes(state))
    if inner is not None:
        denoiser.branches = BranchParallel(shared, meshes(state), inner=inner, whole=layouts[0])
    run = denoiser.begin(spec, *inputs)
    while not run.done:
        if inner is None:
            shared.use(layouts[run.step % len(layouts)])
        denoiser.step(run)
        run = denoiser.restore(denoiser.snapshot(run), spec, *inputs)
    return denoiser.finish(run).video_BCTHW.numpy()


def clip_velocity(dit) -> np.ndarray:
    """One forward of image-to-video; its 45 tokens are no multiple of two."""
    latents, *_ = extension_inputs(5, 0, 6, 6)
    known = torch.randn((1, 20, 5, 6, 6), generator=_seeded(1))
    context, image = torch.randn((1, 512, 32), generator=_seeded(2)), torch.randn((1, 257, 160), generator=_seeded(3))
    return dit.forward(latents, 700.0, context, known, image).numpy()


def clip(state, root, layout) -> np.ndarray:
    """The same under a layout."""
    dit = ClipDiT.load(root, Placement.of("cpu"))
    SequenceParallel(dit.model, meshes(state)).use(layout)
    return clip_velocity(dit)


def _seeded(seed) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
