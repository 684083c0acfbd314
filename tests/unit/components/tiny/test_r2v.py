import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5EncoderModel

from components.checkpoints import fingerprint
from components.denoiser import Denoiser, DenoiseSpec, ReferenceTask
from components.text import TextEncoder
from components.tiny import write_r2v
from components.vae import Vae

FILES = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tiny.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_layout_is_the_releases(root):
    assert contents(root).keys() == FILES
    assert sum(map(len, contents(root).values())) < 8 * 2**20


def test_same_bytes_in_another_process(root, tmp_path):
    code = "import sys, pathlib; from components.tiny import write_r2v; write_r2v(pathlib.Path(sys.argv[1]))"
    repository = Path(__file__).resolve().parents[4]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], cwd=repository, check=True, timeout=120)
    assert contents(tmp_path / "again") == contents(root)


def test_seeds_differ_in_weights_only(root, tmp_path):
    write_r2v(tmp_path / "other", seed=1)
    mine, other = contents(root), contents(tmp_path / "other")
    assert {name for name in FILES if mine[name] != other[name]} == {
        "tiny.json",
        "text_encoder/model.safetensors",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }


def test_writing_again_touches_nothing(tmp_path):
    write_r2v(tmp_path / "r2v")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    write_r2v(tmp_path / "r2v")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_concurrent_writers_leave_one_whole_checkpoint(root, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_r2v, [tmp_path / "r2v"] * 4))
    assert contents(tmp_path / "r2v") == contents(root)
    assert [entry.name for entry in tmp_path.iterdir()] == ["r2v"]


def test_anything_else_is_never_overwritten(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "model_index.json").write_text("{}")
    with pytest.raises(FileExistsError, match="something else"):
        write_r2v(tmp_path / "real")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["real", "model_index.json"]

    write_r2v(tmp_path / "tiny")
    with pytest.raises(FileExistsError, match="something else"):
        write_r2v(tmp_path / "tiny", seed=1)
    assert json.loads((tmp_path / "tiny" / "tiny.json").read_text())["seed"] == 0


@pytest.mark.parametrize(
    ("kind", "part"),
    [(UMT5EncoderModel, "text_encoder"), (WanTransformer3DModel, "transformer"), (AutoencoderKLWan, "vae")],
)
def test_libraries_load_it_completely(root, kind, part):
    _, info = kind.from_pretrained(root / part, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert len(fingerprint(root / part)) == 32


def test_the_librarys_pipeline_loads_it(root, text):
    pipe = WanPipeline.from_pretrained(root)
    assert isinstance(pipe.scheduler, UniPCMultistepScheduler)
    assert pipe.scheduler.config.flow_shift == 5.0
    assert pipe.vae.config.z_dim == 16
    prompt = "A man walks; 2 dogs & “smoke” in Zürich!"
    ids = pipe.tokenizer(prompt, padding="max_length", max_length=512).input_ids
    assert ids == text._tokenizer.encode(prompt).ids


def test_tokenizer_speaks_english_without_unknowns(text):
    encoding = text._tokenizer.encode("Sphinx of black quartz, judge my vow! 0123456789 #@%^*()[]{}<>~`|\\")
    length = sum(encoding.attention_mask)
    assert encoding.ids[length - 1] == 1
    assert encoding.ids[length:] == [0] * (512 - length)
    assert 2 not in encoding.ids
    assert text._tokenizer.encode("walks").ids[1] == 1  # a word of the corpus is one piece


def test_a_whole_video_is_neither_flat_nor_saturated(root, cpu):
    images_KCYX = torch.rand((4, 3, 64, 112), generator=torch.Generator().manual_seed(3)) * 2 - 1
    context = TextEncoder.load(root, cpu).encode("a cat on a table", None)
    vae, denoiser = Vae.load(root, cpu), Denoiser(ReferenceTask.load(root, cpu))
    spec = DenoiseSpec(height=64, width=112, latent_frames=7, steps=8, seed=0)
    run = denoiser.begin(spec, context, vae.encode_references(images_KCYX))
    while not run.done:
        denoiser.step(run)
    frames_FYXC = np.concatenate(list(vae.decode(denoiser.finish(run))))
    assert frames_FYXC.shape == (25, 64, 112, 3)
    assert frames_FYXC.std() > 20
    assert np.isin(frames_FYXC, (0, 255)).mean() < 0.2
