import socket

import pytest
import torch.distributed as dist

from components.errors import Unsupported
from components.usp import Layout, Meshes, close_group, init_group
from tests.unit.components import usp_ranks
from tests.unit.components.world import World


@pytest.fixture(scope="module")
def world():
    with World(2) as world:
        yield world


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(("ranks", "expected"), [([], False), ([0], True), ([1], True), ([0, 1], True)])
def test_one_vote_is_enough(world, ranks, expected):
    assert world.run(usp_ranks.vote_if, ranks) == [expected, expected]


@pytest.mark.parametrize("words", [(0, 0), (0, 3), (7, 2), (-1, -4)])
def test_all_ranks_get_the_highest_word(world, words):
    assert world.run(usp_ranks.highest_of, words) == [max(words)] * 2


def test_a_world_of_one_votes_and_has_meshes_for_no_layout(free_port):
    init_group(rank=0, world_size=1, address="127.0.0.1", port=free_port, timeout_s=10)
    try:
        assert Meshes("cpu", timeout_s=10).world_size == 1
        with pytest.raises(KeyError):
            Meshes("cpu", timeout_s=10)[Layout(2, 1)]
    finally:
        close_group()


def test_backends_are_checked_before_anything_is_opened(free_port):
    with pytest.raises(Unsupported, match="'mpi' does not exist; choose one of gloo, nccl"):
        init_group(rank=0, world_size=2, address="127.0.0.1", port=free_port, timeout_s=10, backend="mpi")


def test_ranks_that_do_not_come_are_not_awaited_for_ever(free_port):
    with pytest.raises(dist.DistError, match=r"(?i)time.?d? ?out"):
        init_group(rank=0, world_size=2, address="127.0.0.1", port=free_port, timeout_s=1)
    close_group()


def test_closing_outside_of_a_world_does_nothing():
    close_group()


def test_meshes_need_a_world():
    with pytest.raises(RuntimeError, match="call init_group first"):
        Meshes("cpu", timeout_s=10)
