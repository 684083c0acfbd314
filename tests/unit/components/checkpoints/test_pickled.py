import os
from pathlib import Path

import pytest
import torch

from components.checkpoints import fill_strict, load_strict, read_pth
from components.errors import CheckpointMismatch

CPU = {"device": torch.device("cpu"), "dtype_of": lambda _: torch.float32}


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def module():
    with torch.device("meta"):
        return torch.nn.Linear(3, 2)


def state(**more):
    return {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16), **more}


def stored_as(name):
    return name[0]


def test_weights_are_filled_under_their_stored_names(tmp_path):
    torch.save(state(), tmp_path / "x.pth")
    linear = module()
    load_strict(linear, tmp_path / "x.pth", **CPU, stored_as=stored_as)
    assert torch.equal(linear.weight, state()["w"])
    assert linear.bias.dtype == torch.float32
    assert not linear.training


def test_the_file_stays_mapped(tmp_path):
    torch.save(state(), tmp_path / "x.pth")
    tensors = read_pth(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in Path("/proc/self/maps").read_text()
    assert torch.equal(tensors["w"], state()["w"])


def test_a_program_in_the_file_is_not_run(tmp_path):
    torch.save(state(c=Hostile(tmp_path / "made")), tmp_path / "x.pth")
    with pytest.raises(CheckpointMismatch, match="more than weights"):
        read_pth(tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.ones(1)}])
def test_anything_but_tensors_by_name_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointMismatch, match="tensors by name"):
        read_pth(tmp_path / "x.pth")


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(CheckpointMismatch, match="missing"):
        read_pth(tmp_path / "x.pth")
    torch.save(state(), tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    for bad in (b"", b"junk", data[: len(data) // 2]):
        (tmp_path / "x.pth").write_bytes(bad)
        with pytest.raises(CheckpointMismatch, match="damaged"):
            read_pth(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": torch.zeros(2, 3)}, "missing 'b'"),
        (state(c=torch.zeros(1)), "unexpected 'c'"),
        (state(w=torch.zeros(3, 2)), r"'w' of shape \(3, 2\) where the model has \(2, 3\)"),
        (state(b=torch.zeros(2, dtype=torch.int8)), "'b' of dtype torch.int8 where a float"),
    ],
)
def test_misfits_are_refused_by_name(tmp_path, tensors, message):
    with pytest.raises(CheckpointMismatch, match=message):
        fill_strict(module(), tensors, tmp_path / "x.pth", **CPU, stored_as=stored_as)
