"""Shared forwards against the original's, rank by rank. fp32 on CPU, real processes.

Cases without slices are shapes that the original cannot split; the whole result must hold there too.
"""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from cluster import plans
from components.checkpoints import known_arguments
from components.dit import REFERENCE_SLOTS
from components.usp import Layout, Meshes, SequenceParallel, legal_layouts, split_plan
from tests.goldens import test_golden_avatar
from tests.goldens.cases import Case, parametrize, weights
from tests.goldens.test_golden_v2v import make_dit
from tests.unit.components.world import World

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def worlds():
    """A world by its size, started when first asked for."""
    started = {}
    with ExitStack() as stack:

        def of(size):
            if size not in started:
                started[size] = stack.enter_context(World(size))
            return started[size]

        yield of


@torch.no_grad()
def shared_forward(state, case: Case, layout: Layout) -> dict[str, np.ndarray]:
    """One forward; the velocity, and what block 0 saw and gave on this rank."""
    tensors, options = case.tensors(), case.config["config"]
    model = WanTransformer3DModel(**known_arguments(WanTransformer3DModel, options))
    model.load_state_dict(weights(tensors))
    if "meshes" not in state:
        state["meshes"] = Meshes("cpu", state["timeout_s"])
    SequenceParallel(model.eval(), state["meshes"]).use(layout)

    seen = {}

    def capture(_block, args, output):
        rows, _context, modulation, *_ = args
        seen.update(x_in=rows.numpy(), mod_in=modulation.numpy(), x_out=output.numpy())

    model.blocks[0].register_forward_hook(capture)
    (velocity,) = model(tensors["in.hidden_states"], tensors["in.timestep"], tensors["in.context"], return_dict=False)
    return {"velocity": velocity.numpy(), **seen}


@torch.no_grad()
def shared_extension(state, case: Case, layout: Layout) -> dict[str, np.ndarray]:
    """The same for an extension. Rows and modulation lie by frames; they are compared as one sequence."""
    tensors, config = case.tensors(), case.config
    dit = make_dit(config["config"], weights(tensors), shot=config["task"] == "v2v_shot")
    if "meshes" not in state:
        state["meshes"] = Meshes("cpu", state["timeout_s"])
    SequenceParallel(dit.model, state["meshes"]).use(layout)

    seen = {}

    def capture(_block, args, output):
        rows, _context, modulation, *_ = args
        seen.update(
            x_in=rows.flatten(0, 1)[None].numpy(),
            mod_in=modulation[None].numpy(),
            x_out=output.flatten(0, 1)[None].numpy(),
        )

    dit.model.blocks[0].register_forward_hook(capture)
    t = float(tensors["in.timestep"].max())
    velocity = dit.forward(tensors["in.noisy"], tensors["in.condition"], t, tensors["in.context"])
    return {"velocity": velocity.numpy(), **seen}


@torch.no_grad()
def shared_avatar(state, case: Case, layout: Layout) -> dict[str, np.ndarray]:
    """The same for a talking avatar."""
    dit = test_golden_avatar.dit_of(case)
    if "meshes" not in state:
        state["meshes"] = Meshes("cpu", state["timeout_s"])
    SequenceParallel(dit.model, state["meshes"]).use(layout)

    seen = {}

    def capture(_block, args, output):
        rows, _context, modulation, *_ = args
        seen.update(x_in=rows.numpy(), mod_in=modulation.numpy(), x_out=output.numpy())

    dit.model.blocks[0].register_forward_hook(capture)
    velocity = test_golden_avatar.forward(dit, case.config["config"], case.tensors())
    return {"velocity": velocity.numpy(), **seen}


def assert_close(got: np.ndarray, expected: torch.Tensor, what: str):
    assert got.shape == tuple(expected.shape), what
    assert np.abs(got.astype(np.float64) - expected.double().numpy()).max() <= TOLERANCE, what


@parametrize("preproc_buckets")
@pytest.mark.parametrize("degree", [2, 4, 8])
def test_golden_token_indices_of_every_bucket(case, degree):
    rows = case.config["table"]
    sizes = {tuple(row[f"v3_{family}"]) for row in rows for family in ("480P", "540P", "720P")}
    assert sizes
    for height, width in sizes:
        for duration_s in (5, 10):
            frames = plans.latent_frames(plans.clip_frames(duration_s, 24)) + REFERENCE_SLOTS
            tokens = frames * (height // plans.TOKEN_PIXELS) * (width // plans.TOKEN_PIXELS)
            plan, index = split_plan(tokens, degree), np.arange(tokens)
            parts = [index[start:stop] for start, stop in plan.slices]
            padded = [np.pad(part, (0, plan.rows - len(part)), constant_values=-1) for part in parts]
            joined = np.concatenate(padded)
            assert np.array_equal(joined[:tokens], index), (height, width, duration_s)
            assert (joined[tokens:] == -1).all()
            assert len(joined) == tokens + plan.pad < tokens + degree


@parametrize("usp_split", task="r2v")
@pytest.mark.parametrize("world_size", [2, 4])
def test_golden_whole_velocity_under_every_layout(case, world_size, worlds):
    whole_velocity_under_every_layout(case, world_size, worlds, shared_forward)


@parametrize("usp_split", task="r2v")
def test_golden_slices_of_every_rank(case, worlds):
    slices_of_every_rank(case, worlds, shared_forward)


@parametrize("usp_split", task="v2v_single")
@pytest.mark.parametrize("world_size", [2, 4])
def test_golden_whole_velocity_of_an_extension_under_every_layout(case, world_size, worlds):
    whole_velocity_under_every_layout(case, world_size, worlds, shared_extension)


@parametrize("usp_split", task="v2v_shot")
@pytest.mark.parametrize("world_size", [2, 4])
def test_golden_whole_velocity_of_a_shot_switch_under_every_layout(case, world_size, worlds):
    whole_velocity_under_every_layout(case, world_size, worlds, shared_extension)


@parametrize("usp_split", task="v2v_single")
def test_golden_slices_of_every_rank_of_an_extension(case, worlds):
    slices_of_every_rank(case, worlds, shared_extension)


@parametrize("usp_split", task="v2v_shot")
def test_golden_slices_of_every_rank_of_a_shot_switch(case, worlds):
    slices_of_every_rank(case, worlds, shared_extension)


def heads_of(case) -> int:
    options = case.config["config"]
    return options["num_attention_heads"] if "num_attention_heads" in options else options["num_heads"]


def whole_velocity_under_every_layout(case, world_size, worlds, forward):
    expected = case.tensors()["out.single"]
    for layout in legal_layouts(world_size, heads_of(case)):
        for answer in worlds(world_size).run(forward, case, layout):
            # The original gives an extension's prefix too; nothing reads its velocity.
            made = answer["velocity"].shape[2]
            assert_close(answer["velocity"], expected[:, :, expected.shape[2] - made :], f"{layout}")


def slices_of_every_rank(case, worlds, forward):
    tensors, world_size = case.tensors(), case.config["world"]
    names = [name for name in tensors if name.startswith("out.rank")]
    layouts = legal_layouts(world_size, heads_of(case))
    if not names:
        assert any(case.config["error"]), "a case without slices records why"
        return
    for layout in (layout for layout in layouts if layout.degree == world_size):
        answers = worlds(world_size).run(forward, case, layout)
        for name in names:
            rank, _block, what = name.removeprefix("out.rank").split(".")
            assert_close(answers[int(rank)][what], tensors[name], f"{layout} {name}")


@parametrize("usp_split", task="a2v")
@pytest.mark.parametrize("world_size", [2, 4])
def test_golden_whole_velocity_of_an_avatar_under_every_layout(case, world_size, worlds):
    whole_velocity_under_every_layout(case, world_size, worlds, shared_avatar)


@parametrize("usp_split", task="a2v")
def test_golden_slices_of_every_rank_of_an_avatar(case, worlds):
    slices_of_every_rank(case, worlds, shared_avatar)
