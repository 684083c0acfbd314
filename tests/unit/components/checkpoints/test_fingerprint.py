import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.checkpoints import fingerprint, read_config, sample
from components.errors import CheckpointMismatch
from tests.unit.components.checkpoints.test_weights import NAME, shard


@pytest.fixture
def folder(root, tmp_path):
    return shutil.copytree(root / "transformer", tmp_path / "elsewhere")


def rewrite(folder, change):
    file = folder / f"{NAME}.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(state)
    save_file(state, file)


def test_names_content_and_not_place(root, folder):
    assert fingerprint(folder) == fingerprint(root / "transformer")
    assert len(fingerprint(folder)) == 32


def test_does_not_depend_on_sharding_or_bookkeeping(root, folder):
    shard(folder)
    config = read_config(folder / "config.json") | {"_class_name": "Fork"}
    (folder / "config.json").write_text(json.dumps(config, indent=None))
    assert fingerprint(folder) == fingerprint(root / "transformer")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["proj_out.bias"].add_(1e-3),
        lambda state: state["blocks.1.ffn.net.0.proj.weight"][-1].add_(1e-3),
        lambda state: state.update({"proj_out.bias": state["proj_out.bias"].to(torch.bfloat16)}),
        lambda state: state.update({"proj_out.bias": state["proj_out.bias"][None]}),
        lambda state: state.update({"new": state.pop("proj_out.bias")}),
    ],
    ids=["values", "values at a tail", "dtype", "shape", "name"],
)
def test_tells_other_weights_apart(root, folder, change):
    rewrite(folder, change)
    assert fingerprint(folder) != fingerprint(root / "transformer")


def test_tells_another_configuration_apart(root, folder):
    config = read_config(folder / "config.json") | {"eps": 1e-5}
    (folder / "config.json").write_text(json.dumps(config))
    assert fingerprint(folder) != fingerprint(root / "transformer")


def test_incomplete_folder_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointMismatch, match=r"config\.json is missing"):
        fingerprint(folder)


def test_a_sample_knows_every_file_of_a_part(root, folder):
    assert sample([folder]) != sample([root / "transformer"])  # the part's name counts
    copied = shutil.copytree(root / "transformer", folder.parent / "transformer")
    assert sample([copied]) == sample([root / "transformer"])
    (copied / "config.json").write_text("{}")
    assert sample([copied]) != sample([root / "transformer"])


def test_a_sample_of_a_large_file_reaches_its_middle(tmp_path):
    file = tmp_path / "weights.pth"
    with file.open("wb") as stream:
        stream.truncate(40 * 2**20)
    before = sample([file])
    with file.open("r+b") as stream:
        stream.seek(20 * 2**20)
        stream.write(b"x" * 64 * 1024)
    assert sample([file]) != before


def test_nothing_has_no_sample(tmp_path):
    with pytest.raises(CheckpointMismatch, match="none of a component's files"):
        sample([])
    with pytest.raises(CheckpointMismatch, match="cannot be read"):
        sample([tmp_path / "gone"])
