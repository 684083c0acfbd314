import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from safetensors.torch import load_file, save_file

from components.denoiser import Denoiser, DenoiseSpec, ReferenceTask, Snapshot
from components.dit import REFERENCE_SLOTS
from components.errors import NonFiniteLatents, SnapshotMismatch
from components.tiny import write_r2v
from components.values import Condition, TextContext

SPEC = DenoiseSpec(height=32, width=48, latent_frames=3, steps=4, seed=11)
GUIDED = replace(SPEC, guidance=4.0, guidance_image=2.5)


def complete(denoiser, run):
    while not run.done:
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW


def test_noise_is_drawn_first_then_each_reference_in_order(denoiser, vae, context, condition):
    run = denoiser.begin(SPEC, context, condition)
    generator = torch.Generator().manual_seed(SPEC.seed)
    assert torch.equal(run.latents_BCTHW, torch.randn((1, 16, 3, 4, 6), generator=generator))
    for slot in range(2):
        moments = torch.cat([condition.mean_KCHW[slot], condition.logvar_KCHW[slot]])[None, :, None]
        sample = DiagonalGaussianDistribution(moments).sample(generator)
        assert torch.equal(run.flow.references_BCKHW[:, :, slot : slot + 1], vae.scale.normalise(sample))
    assert not run.flow.references_BCKHW[:, :, 2:].any()
    assert run.flow.references_BCKHW.shape[2] == REFERENCE_SLOTS
    assert torch.equal(run.generator.get_state(), generator.get_state())


@pytest.mark.parametrize("spec", [SPEC, GUIDED, replace(GUIDED, guidance_image=0.5), replace(SPEC, guidance_image=9.0)])
def test_equals_a_loop_over_the_library(root, denoiser, context, condition, spec):
    model = WanTransformer3DModel.from_pretrained(root / "transformer").eval()
    solver = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    solver.set_timesteps(sigmas=(1 - torch.linspace(1, 0.001, 5, dtype=torch.float64)).flip(0)[:-1].numpy())
    run = denoiser.begin(spec, context, condition)
    latents, references = run.latents_BCTHW, run.flow.references_BCKHW

    def forward(frames, text, t):
        return model(torch.cat([latents, frames], dim=2), t[None], text, return_dict=False)[0][:, :, :3]

    with torch.no_grad():
        for t in solver.timesteps:
            velocity = forward(references, context.prompt_BLD, t)
            if spec.guidance > 1:
                negative = forward(references, context.negative_BLD, t)
                uncond = forward(references * 0, context.negative_BLD, t)
                velocity = uncond + spec.guidance_image * (negative - uncond) + spec.guidance * (velocity - negative)
            latents = solver.step(velocity, t, latents).prev_sample
    torch.testing.assert_close(complete(denoiser, run), latents, rtol=0, atol=1e-5)


def test_guidance_one_takes_one_evaluation_and_guidance_three(denoiser, context, condition, monkeypatch):
    calls = []
    forward = denoiser.task._dit.forward
    monkeypatch.setattr(denoiser.task._dit, "forward", lambda *args: calls.append(1) or forward(*args))
    denoiser.step(denoiser.begin(SPEC, context, condition))
    assert len(calls) == 1
    denoiser.step(denoiser.begin(GUIDED, context, condition))
    assert len(calls) == 4


def test_progress_and_end(denoiser, context, condition):
    run = denoiser.begin(SPEC, context, condition)
    with pytest.raises(ValueError, match="only 0 of 4 steps"):
        denoiser.finish(run)
    for step in range(SPEC.steps):
        assert (run.step, run.done) == (step, False)
        denoiser.step(run)
    assert (run.step, run.done) == (4, True)
    assert denoiser.finish(run).video_BCTHW.dtype == torch.float32
    with pytest.raises(ValueError, match="all 4 steps"):
        denoiser.step(run)


def test_interleaved_runs_equal_separate_ones(denoiser, context, condition):
    specs = [SPEC, replace(GUIDED, seed=5), replace(SPEC, steps=7, latent_frames=2)]
    alone = [complete(denoiser, denoiser.begin(spec, context, condition)) for spec in specs]
    runs = [denoiser.begin(spec, context, condition) for spec in specs]
    while not all(run.done for run in runs):
        for run in reversed(runs):
            if not run.done:
                denoiser.step(run)
    for run, expected in zip(runs, alone, strict=True):
        assert torch.equal(denoiser.finish(run).video_BCTHW, expected)


def test_the_process_wide_generator_is_neither_read_nor_moved(denoiser, context, condition):
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(complete(denoiser, denoiser.begin(SPEC, context, condition)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)


REST = """
import json, sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from components.denoiser import Denoiser, DenoiseSpec, ReferenceTask, Snapshot
from components.device import Placement
from components.values import Condition, TextContext

torch.set_num_threads(int(sys.argv[3]))
folder = Path(sys.argv[2])
denoiser = Denoiser(ReferenceTask.load(Path(sys.argv[1]), Placement.of("cpu")))
tensors = load_file(folder / "inputs.safetensors")
context = TextContext(tensors["prompt_BLD"], tensors["negative_BLD"])
condition = Condition(tensors["mean_KCHW"], tensors["logvar_KCHW"])
for file in sorted(folder.glob("*.snapshot")):
    snapshot = Snapshot.from_bytes(file.read_bytes())
    spec = DenoiseSpec(**json.loads(file.with_suffix(".json").read_text()))
    run = denoiser.restore(snapshot, spec, context, condition)
    while not run.done:
        denoiser.step(run)
    save_file({"latents": run.latents_BCTHW, "generator": run.generator.get_state()}, file.with_suffix(".out"))
"""


def test_restored_in_another_process_at_any_step_the_rest_is_bit_identical(
    root, denoiser, context, condition, tmp_path
):
    save_file({**context.tensors(), **condition.tensors()}, tmp_path / "inputs.safetensors")
    expected = {}
    for name, spec in (("plain", replace(SPEC, steps=8)), ("guided", GUIDED)):
        run = denoiser.begin(spec, context, condition)
        for at in range(spec.steps + 1):
            file = tmp_path / f"{name}-{at}.snapshot"
            file.write_bytes(denoiser.snapshot(run).to_bytes())
            file.with_suffix(".json").write_text(json.dumps(asdict(spec)))
            expected[file.with_suffix(".out")] = run
            if not run.done:
                denoiser.step(run)
    repository = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", REST, str(root), str(tmp_path), str(torch.get_num_threads())]
    subprocess.run(command, cwd=repository, check=True, timeout=120)
    assert len(expected) == 9 + 5
    for file, run in expected.items():
        got = load_file(file)
        assert torch.equal(got["latents"], run.latents_BCTHW), file.name
        assert torch.equal(got["generator"], run.generator.get_state()), file.name


def test_a_snapshot_is_a_copy_and_serves_more_than_once(denoiser, context, condition):
    run = denoiser.begin(SPEC, context, condition)
    denoiser.step(run)
    denoiser.step(run)
    snapshot = denoiser.snapshot(run)
    blob = snapshot.to_bytes()
    expected = complete(denoiser, run)
    for _ in range(2):
        assert torch.equal(complete(denoiser, denoiser.restore(snapshot, SPEC, context, condition)), expected)
    assert snapshot.to_bytes() == blob
    assert snapshot.step == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"height": 48, "width": 32}, "spec.height"),
        ({"latent_frames": 2}, "spec.latent_frames"),
        ({"steps": 5}, "spec.steps"),
        ({"seed": 12}, "spec.seed"),
        ({"flow_shift": 3.0}, "spec.flow_shift"),
        ({"guidance": 2.0}, "spec.guidance"),
        ({"guidance_image": 2.0}, "spec.guidance_image"),
    ],
)
def test_another_spec_is_refused_by_field(denoiser, context, condition, change, field):
    snapshot = denoiser.snapshot(denoiser.begin(SPEC, context, condition))
    spec = replace(SPEC, **change)
    if "height" in change:
        condition = Condition(condition.mean_KCHW.transpose(2, 3), condition.logvar_KCHW.transpose(2, 3))
    with pytest.raises(SnapshotMismatch, match=field):
        denoiser.restore(snapshot, spec, context, condition)


@pytest.mark.parametrize("field", ["format", "weights", "solver", "context", "condition"])
def test_another_origin_is_refused_by_field(denoiser, context, condition, field):
    snapshot = denoiser.snapshot(denoiser.begin(SPEC, context, condition))
    foreign = Snapshot(snapshot.tensors, {**snapshot.meta, field: "foreign"})
    with pytest.raises(SnapshotMismatch, match=f"{field} 'foreign'"):
        denoiser.restore(foreign, SPEC, context, condition)


def test_other_weights_and_other_inputs_are_told_apart(denoiser, context, condition, cpu, tmp_path):
    write_r2v(tmp_path / "other", seed=1)
    other = Denoiser(ReferenceTask.load(tmp_path / "other", cpu))
    snapshot = denoiser.snapshot(denoiser.begin(SPEC, context, condition))
    with pytest.raises(SnapshotMismatch, match="weights"):
        other.restore(snapshot, SPEC, context, condition)
    with pytest.raises(SnapshotMismatch, match="condition"):
        denoiser.restore(snapshot, SPEC, context, Condition(condition.mean_KCHW + 1, condition.logvar_KCHW))
    with pytest.raises(SnapshotMismatch, match="context"):
        denoiser.restore(snapshot, SPEC, TextContext(context.prompt_BLD + 1, context.negative_BLD), condition)


@pytest.mark.parametrize("name", ["latents", "generator"])
def test_incomplete_snapshot_is_refused(denoiser, context, condition, name):
    snapshot = denoiser.snapshot(denoiser.begin(SPEC, context, condition))
    tensors = {key: tensor for key, tensor in snapshot.tensors.items() if key != name}
    with pytest.raises(SnapshotMismatch, match=f"lacks '{name}'"):
        denoiser.restore(Snapshot(tensors, snapshot.meta), SPEC, context, condition)


def test_nan_fails_its_run_alone(denoiser, context, condition):
    good = denoiser.begin(SPEC, context, condition)
    bad = denoiser.begin(SPEC, TextContext(context.prompt_BLD * float("nan"), context.negative_BLD), condition)
    with pytest.raises(NonFiniteLatents, match="step 1 of 4"):
        denoiser.step(bad)
    assert torch.isfinite(complete(denoiser, good)).all()


def test_misfits_are_refused(denoiser, context, condition):
    mean, logvar = condition.mean_KCHW, condition.logvar_KCHW
    bare = TextContext(context.prompt_BLD, context.negative_BLD[:, :0])
    cases = [
        (SPEC, TextContext(context.prompt_BLD[..., :8], context.negative_BLD), condition, "8 wide"),
        (GUIDED, bare, condition, "needs the negative prompt"),
        (SPEC, context, Condition(mean.repeat(3, 1, 1, 1), logvar.repeat(3, 1, 1, 1)), "up to 4"),
        (SPEC, context, Condition(mean, logvar[:1]), "as many log-variances"),
        (replace(SPEC, width=64), context, condition, "do not fit a video"),
    ]
    for spec, text, references, message in cases:
        with pytest.raises(ValueError, match=message):
            denoiser.begin(spec, text, references)
    denoiser.begin(SPEC, bare, condition)  # without guidance no negative prompt is needed


@pytest.mark.parametrize("change", [{"height": 40}, {"width": 0}, {"latent_frames": 0}, {"steps": 0}])
def test_impossible_specs_are_refused(change):
    with pytest.raises(ValueError, match="must be"):
        replace(SPEC, **change)
