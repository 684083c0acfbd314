"""SkyReels V1 against the library's own pipelines, on tiny random weights. fp32 on CPU."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import HunyuanSkyreelsImageToVideoPipeline, HunyuanVideoPipeline
from PIL import Image

from components.checkpoints import fingerprint
from components.denoiser import Denoiser, DenoiseSpec, HunyuanImageTask, HunyuanTask, Snapshot
from components.dit.hunyuan import HunyuanDiT
from components.errors import CheckpointMismatch, SnapshotMismatch
from components.image import cover
from components.text_hunyuan import with_frame_rate
from components.values import FirstFrame, PooledContext
from tests.unit.components.hunyuan_pipelines import pipeline

PROMPT, NEGATIVE = "a woman in a red coat walks by the sea", "smoke, overexposed"
SHAPE = {"height": 48, "width": 64}
TOLERANCE = 1e-4


def spec(**changes) -> DenoiseSpec:
    fields = {**SHAPE, "latent_frames": 3, "steps": 4, "seed": 11, "flow_shift": 7.0, "guidance": 6.0, **changes}
    return DenoiseSpec(**fields)


def run_of(denoiser, run):
    while not run.done:
        denoiser.step(run)
    return denoiser.finish(run).video_BCTHW


@pytest.fixture(scope="module")
def t2v(v1_t2v_root, cpu) -> Denoiser:
    return Denoiser(HunyuanTask.load(v1_t2v_root, cpu))


@pytest.fixture(scope="module")
def i2v(v1_i2v_root, cpu) -> Denoiser:
    return Denoiser(HunyuanImageTask.load(v1_i2v_root, cpu))


@pytest.fixture(scope="module")
def context(v1_text) -> PooledContext:
    return v1_text.encode(PROMPT, NEGATIVE)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 255, (SHAPE["height"], SHAPE["width"], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def first(v1_vae, picture) -> FirstFrame:
    return v1_vae.encode_first(cover(picture, **SHAPE))


def of_library(kind, root, **fields) -> torch.Tensor:
    return pipeline(kind, root)(
        prompt=with_frame_rate(PROMPT),
        negative_prompt=NEGATIVE,
        **SHAPE,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(11),
        output_type="latent",
        return_dict=False,
        **fields,
    )[0]


@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_text_to_video_equals_the_librarys_pipeline(t2v, v1_t2v_root, context, guidance):
    got = run_of(t2v, t2v.begin(spec(guidance=guidance), context))
    expected = of_library(HunyuanVideoPipeline, v1_t2v_root, true_cfg_scale=guidance)
    assert float((got - expected).abs().max()) <= TOLERANCE


def test_image_to_video_equals_the_librarys_pipeline(i2v, v1_i2v_root, context, first, picture):
    got = run_of(i2v, i2v.begin(spec(), context, first))
    expected = of_library(HunyuanSkyreelsImageToVideoPipeline, v1_i2v_root, image=picture, true_cfg_scale=6.0)
    assert float((got - expected).abs().max()) <= TOLERANCE


@pytest.mark.parametrize("family", ["t2v", "i2v"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_run_goes_on_from_its_snapshot_bit_by_bit(family, at, context, first, request):
    denoiser = request.getfixturevalue(family)
    inputs = (context, first) if family == "i2v" else (context,)
    expected = run_of(denoiser, denoiser.begin(spec(), *inputs))
    run = denoiser.begin(spec(), *inputs)
    for _ in range(at):
        denoiser.step(run)
    stored = denoiser.snapshot(run).to_bytes()
    again = denoiser.restore(Snapshot.from_bytes(stored), spec(), *inputs)
    assert again.step == at
    assert torch.equal(run_of(denoiser, again), expected)


def test_a_snapshot_of_another_prompt_is_refused(t2v, context, v1_text):
    snapshot = t2v.snapshot(t2v.begin(spec(), context))
    with pytest.raises(SnapshotMismatch, match="context"):
        t2v.restore(snapshot, spec(), v1_text.encode(PROMPT, "rain"))


def test_the_pooled_vector_counts(t2v, context):
    changed = PooledContext(context.prompt_BLD, context.pooled_BE + 1, context.negative_BLD, context.negative_pooled_BE)
    one, other = (run_of(t2v, t2v.begin(spec(guidance=1.0), value)) for value in (context, changed))
    assert not torch.allclose(one, other, atol=1e-3)


def test_what_does_not_fit_is_refused(t2v, i2v, context, first, v1_text):
    with pytest.raises(ValueError, match="needs the negative prompt"):
        t2v.begin(spec(), v1_text.encode(PROMPT, None))
    with pytest.raises(ValueError, match="the DiT takes 64 and 24"):
        t2v.begin(spec(), PooledContext(*(tensor[..., :8] for tensor in context.tensors().values())))
    with pytest.raises(ValueError, match="does not fit a video of 48 × 80"):
        i2v.begin(spec(width=80), context, first)


def test_each_model_refuses_the_others_checkpoint(v1_t2v_root, v1_i2v_root, cpu):
    with pytest.raises(CheckpointMismatch, match="is of the image-to-video model"):
        HunyuanTask.load(v1_i2v_root, cpu)
    with pytest.raises(CheckpointMismatch, match="is of the text-to-video model"):
        HunyuanImageTask.load(v1_t2v_root, cpu)


@pytest.mark.parametrize("change", [{"guidance_embeds": False}, {"in_channels": 33}, {"num_layers": "two"}])
def test_another_architecture_is_refused(v1_t2v_root, cpu, tmp_path, change):
    shutil.copytree(v1_t2v_root, tmp_path / "release")
    file = tmp_path / "release" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointMismatch, match=r"none of SkyReels V1|unusable number"):
        HunyuanDiT.load(tmp_path / "release", cpu)


def test_weights_are_named_by_their_content(t2v, v1_t2v_root):
    assert t2v.task.weights == fingerprint(v1_t2v_root)
