import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import UMT5Config, UMT5EncoderModel

from components.checkpoints import load_strict, read_config
from components.errors import CheckpointMismatch
from components.text import TIED

NAME = "diffusion_pytorch_model"
KEYS = ("blocks.0.ffn.net.2.bias", "blocks.1.ffn.net.2.bias", "proj_out.bias")


@pytest.fixture
def folder(root, tmp_path):
    """A copy of the DiT that a test may spoil."""
    return shutil.copytree(root / "transformer", tmp_path / "transformer")


@pytest.fixture
def spoil(folder):
    """Rewrites the weights through a function of the state dict."""

    def apply(change):
        file = folder / f"{NAME}.safetensors"
        state = {name: tensor.clone() for name, tensor in load_file(file).items()}
        change(state)
        save_file(state, file)

    return apply


@pytest.fixture
def load(folder, build):
    def into_new_model(dtype=torch.float32, **options):
        model = build(WanTransformer3DModel, folder)
        load_strict(model, folder, device=torch.device("cpu"), dtype_of=lambda _: dtype, **options)
        return model

    return into_new_model


def test_every_parameter_is_the_files(folder, load):
    model, stored = load(), load_file(folder / f"{NAME}.safetensors")
    assert not model.training
    parameters = dict(model.named_parameters())
    assert parameters.keys() == stored.keys()
    for name, parameter in parameters.items():
        assert torch.equal(parameter, stored[name])
        assert not parameter.requires_grad


def test_parameters_are_cast(load):
    assert {parameter.dtype for parameter in load(torch.bfloat16).parameters()} == {torch.bfloat16}


def test_parameters_on_cpu_stay_mapped_to_the_file(folder, load):
    model = load()
    maps = [
        line.split()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if f"{folder}/{NAME}.safetensors" in line
    ]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in maps]
    for parameter in model.parameters():
        assert any(start <= parameter.data_ptr() < stop for start, stop in spans)


def test_missing_keys_are_named_and_counted(spoil, load):
    spoil(lambda state: [state.pop(key) for key in KEYS])
    with pytest.raises(CheckpointMismatch, match=rf"WanTransformer3DModel: missing '{KEYS[0]}' \(and 2 more\)\."):
        load()


def test_unexpected_keys_are_named(spoil, load):
    spoil(lambda state: state.update({"blocks.0.extra.weight": torch.ones(2)}))
    with pytest.raises(CheckpointMismatch, match=r"unexpected 'blocks\.0\.extra\.weight'\."):
        load()


def test_misshaped_keys_are_named_with_both_shapes(spoil, load):
    spoil(lambda state: state.update({KEYS[2]: torch.ones(7)}))
    with pytest.raises(CheckpointMismatch, match=r"'proj_out\.bias' of shape \(7,\) where the model has \(64,\)"):
        load()


def test_quantised_keys_are_not_cast_silently(spoil, load):
    spoil(lambda state: state.update({KEYS[2]: state[KEYS[2]].to(torch.int8)}))
    with pytest.raises(CheckpointMismatch, match=r"'proj_out\.bias' of dtype I8"):
        load()


def test_all_problems_come_in_one_message(spoil, load):
    def change(state):
        state["new.weight"] = state.pop(KEYS[0])
        state[KEYS[1]] = torch.ones(1)

    spoil(change)
    with pytest.raises(CheckpointMismatch, match=f"missing '{KEYS[0]}'; unexpected 'new.weight'; '{KEYS[1]}' of"):
        load()


def shard(folder):
    state = load_file(folder / f"{NAME}.safetensors")
    (folder / f"{NAME}.safetensors").unlink()
    names = sorted(state)
    parts = {f"{NAME}-0000{part + 1}-of-00002.safetensors": names[part::2] for part in range(2)}
    for file, keys in parts.items():
        save_file({key: state[key] for key in keys}, folder / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / f"{NAME}.safetensors.index.json").write_text(json.dumps(index))
    return sorted(parts), index


def test_shards_load_like_one_file(folder, load):
    expected = dict(load().named_parameters())
    shard(folder)
    assert all(torch.equal(parameter, expected[name]) for name, parameter in load().named_parameters())


def test_missing_shard_is_named(folder, load):
    files, _ = shard(folder)
    (folder / files[1]).unlink()
    with pytest.raises(CheckpointMismatch, match=f"{files[1]} cannot be read"):
        load()


def test_index_and_shards_must_agree(folder, load):
    files, index = shard(folder)
    placed = index["weight_map"]
    file = folder / f"{NAME}.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": placed | {"ghost": files[0]}}))
    with pytest.raises(CheckpointMismatch, match=r"'ghost' is named by .* but in no shard"):
        load()
    file.write_text(json.dumps({"weight_map": {key: at for key, at in placed.items() if key != KEYS[2]}}))
    with pytest.raises(CheckpointMismatch, match=rf"holds '{KEYS[2]}', which"):
        load()
    file.write_text(json.dumps({"metadata": {}}))
    with pytest.raises(CheckpointMismatch, match="no usable weight_map"):
        load()


def test_no_weights_at_all(folder, load):
    (folder / f"{NAME}.safetensors").unlink()
    with pytest.raises(CheckpointMismatch, match="holds no weights"):
        load()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-100], "shorter than its header says"),
        (lambda data: data[:50], "not a safetensors file"),
        (lambda data: b"", "not a safetensors file"),
        (lambda data: b"PK" + data[2:], "not a safetensors file"),
        (lambda data: data[:8] + b"[" + data[9:], "not a safetensors file"),
    ],
)
def test_damaged_file_is_named(folder, load, damage, message):
    file = folder / f"{NAME}.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CheckpointMismatch, match=message):
        load()


@pytest.fixture
def load_text(root, tmp_path):
    folder = shutil.copytree(root / "text_encoder", tmp_path / "text_encoder")

    def with_weights(change):
        state = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
        change(state)
        save_file(state, folder / "model.safetensors")
        with torch.device("meta"):
            model = UMT5EncoderModel(UMT5Config.from_dict(read_config(folder / "config.json")))
        load_strict(model, folder, device=torch.device("cpu"), dtype_of=lambda _: torch.float32, tied=TIED)
        return model

    return with_weights


ALIAS, CANONICAL = next(iter(TIED.items()))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: None,
        lambda state: state.update({ALIAS: state.pop(CANONICAL)}),
        lambda state: state.update({ALIAS: state[CANONICAL].clone()}),
    ],
    ids=["canonical", "alias", "both"],
)
def test_tied_parameters_load_under_either_name(load_text, root, change):
    model = load_text(change)
    assert model.encoder.embed_tokens.weight is model.shared.weight
    assert torch.equal(model.shared.weight, load_file(root / "text_encoder" / "model.safetensors")[CANONICAL])


def test_tied_parameters_that_differ_are_refused(load_text):
    with pytest.raises(CheckpointMismatch, match="differ but must be one tensor"):
        load_text(lambda state: state.update({ALIAS: state[CANONICAL] + 1}))


def test_tied_parameters_absent_under_both_names_are_missing(load_text):
    with pytest.raises(CheckpointMismatch, match=rf"missing '{CANONICAL}'"):
        load_text(lambda state: state.pop(CANONICAL))
