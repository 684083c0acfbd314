import pytest

from components.tiny import TinySizes, write_extension, write_r2v


def contents(root):
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_same_bytes_for_the_same_seed_in_the_original_layout(extension_root, tmp_path):
    write_extension(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(extension_root)
    names = {name.split("/")[0] for name in contents(extension_root)}
    t5, vae = "models_t5_umt5-xxl-enc-bf16.pth", "Wan2.1_VAE.pth"
    assert names == {"google", t5, vae, "transformer", "shot_transformer", "tiny.json"}


def test_another_seed_is_another_checkpoint(extension_root, tmp_path):
    write_extension(tmp_path / "other", seed=1)
    ours, theirs = contents(tmp_path / "other"), contents(extension_root)
    assert {name for name in ours if ours[name] == theirs[name]} == {
        "google/umt5-xxl/tokenizer.json",
        "google/umt5-xxl/tokenizer_config.json",
        "google/umt5-xxl/special_tokens_map.json",
        "transformer/config.json",
        "shot_transformer/config.json",
        "shot_transformer/diffusion_pytorch_model.safetensors.index.json",
    }


def test_something_else_is_never_touched(tmp_path):
    write_r2v(tmp_path / "x", sizes=TinySizes(layers=1, heads=1))
    before = contents(tmp_path / "x")
    with pytest.raises(FileExistsError, match="something else"):
        write_extension(tmp_path / "x")
    assert contents(tmp_path / "x") == before
