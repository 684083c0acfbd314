import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.checkpoints import weights
from components.checkpoints.verify import verify
from components.errors import CheckpointMismatch

T5, VAE = "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth"


def problems(root):
    return {part.name: part.problem for part in verify(root).parts if part.problem}


def test_whole_releases(root, extension_root):
    for folder, layout, names in (
        (root, "reference-to-video", {"transformer", "text_encoder", "tokenizer", "vae"}),
        (extension_root, "video extension", {"transformer", "shot_transformer", T5, "google/umt5-xxl", VAE}),
    ):
        report = verify(folder)
        assert (report.layout, report.whole) == (layout, True)
        assert {part.name for part in report.parts} == names
        assert all(
            part.parameters > 0 for part in report.parts if "tokenizer" not in part.name and "/" not in part.name
        )


def test_parameters_are_counted(extension_root):
    stored = load_file(extension_root / "transformer" / "diffusion_pytorch_model.safetensors")
    part = verify(extension_root).parts[0]
    assert (part.tensors, part.parameters) == (len(stored), sum(tensor.numel() for tensor in stored.values()))


def test_every_problem_is_reported_with_its_key(extension_root, tmp_path):
    folder = tmp_path / "x"
    shutil.copytree(extension_root, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["blocks.0.ffn.0.weight"] = torch.zeros(1)
    save_file(state, file)
    (folder / "shot_transformer" / "diffusion_pytorch_model-00001-of-00002.safetensors").unlink()
    data = (folder / T5).read_bytes()
    (folder / T5).write_bytes(data[:-100])
    vae = torch.load(folder / VAE, weights_only=True)
    del vae["decoder.head.2.bias"]
    torch.save(vae, folder / VAE)
    (folder / "google" / "umt5-xxl" / "tokenizer.json").unlink()
    found = problems(folder)
    assert "'blocks.0.ffn.0.weight' of shape (1,)" in found["transformer"]
    assert "00001-of-00002" in found["shot_transformer"]
    assert "damaged" in found[T5]
    assert "missing 'decoder.head.2.bias'" in found[VAE]
    assert "tokenizer.json is missing" in found["google/umt5-xxl"]


def test_a_cut_off_file_is_found(root, tmp_path):
    shutil.copytree(root, tmp_path / "x")
    file = tmp_path / "x" / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert list(problems(tmp_path / "x")) == ["vae"]


def test_no_weights_are_read(extension_root, monkeypatch):
    monkeypatch.setattr(weights, "safe_open", None)
    assert verify(extension_root).whole


def test_any_other_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointMismatch, match="no release of a known layout"):
        verify(tmp_path)
