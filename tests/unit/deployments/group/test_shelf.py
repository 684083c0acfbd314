"""Weights that wait in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from components.denoiser import Denoiser
from components.device import Placement
from deployments.group.shelf import Shelf
from deployments.group.tasks import TASKS

HOST = torch.device("cpu")


@dataclass
class Task:
    """Only the weights of one."""

    model: torch.nn.Module


def denoiser(floats: int) -> Denoiser:
    return Denoiser(cast(Any, Task(torch.nn.Linear(floats, 1, bias=False))))


def held(shelf: Shelf, names: Mapping[str, Denoiser]) -> set[str]:
    return {name for name in names if shelf.take(name, HOST) is not None}


def test_what_is_put_away_comes_back_with_the_same_weights(root: Path) -> None:
    whole = Denoiser(TASKS["r2v"](root, Placement.of("cpu"), "auto"))
    before = {name: tensor.clone() for name, tensor in whole.task.model.state_dict().items()}
    shelf = Shelf(2**30)
    shelf.put("r2v", whole)
    back = shelf.take("r2v", HOST)
    assert back is whole
    assert all(torch.equal(tensor, before[name]) for name, tensor in back.task.model.state_dict().items())
    assert shelf.take("r2v", HOST) is None


@pytest.mark.parametrize(
    ("limit_nbytes", "left"), [(0, set()), (399, set()), (400, {"c"}), (800, {"b", "c"}), (1200, {"a", "b", "c"})]
)
def test_those_put_away_longest_ago_make_room(limit_nbytes: int, left: set[str]) -> None:
    shelf = Shelf(limit_nbytes)
    names = {name: denoiser(100) for name in "abc"}
    for name, one in names.items():
        shelf.put(name, one)
    assert shelf.nbytes == 400 * len(left)
    assert held(shelf, names) == left


def test_one_that_is_too_large_alone_drives_nobody_out() -> None:
    shelf = Shelf(400)
    names = {"small": denoiser(100), "large": denoiser(101)}
    for name, one in names.items():
        shelf.put(name, one)
    assert held(shelf, names) == {"small"}
