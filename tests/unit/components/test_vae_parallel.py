"""The VAE shared among real processes against the same VAE in one. fp32 on CPU."""

import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from cluster.plans import BUCKETS, floor16
from components.errors import Unsupported
from components.vae import STRIDE_S
from components.vae_parallel import share_decode, share_encode
from tests.unit.components import vae_ranks
from tests.unit.components.world import Failure, World

TOLERANCE = 2e-5  # rounding: a convolution's kernel depends on the shape; one process is itself 4e-6 off fp64
TOLERANCE_FP64 = 1e-12
COLUMNS = 1
BUCKET_ROWS = sorted({floor16(height) // STRIDE_S for table in BUCKETS.values() for height, _ in table.values()})
ODD_ROWS = [4, 5, 7, 9, 23]  # a row per rank, uneven bands, primes
SIZES = [(2, rows, COLUMNS) for rows in ODD_ROWS + BUCKET_ROWS]


@pytest.fixture(scope="module")
def world():
    with World(4) as world:
        yield world


@pytest.fixture(scope="module")
def library(root):
    return AutoencoderKLWan.from_pretrained(root / "vae").eval()


@pytest.fixture(scope="module")
def expected(vae):
    """Every size's clip as one process decodes it: fp32 [3, F, Y, X]."""
    return [torch.cat(list(vae.decode_float(vae_ranks.latents(*size))), dim=2)[0].numpy() for size in SIZES]


def levels(clip):
    return np.round(clip * 255)


@pytest.mark.parametrize("degree", [2, 4])
def test_every_bucket_height_decodes_as_in_one_process(world, root, expected, degree):
    answers = world.run(vae_ranks.decode, root, degree, SIZES)
    for index, (size, one) in enumerate(zip(SIZES, expected, strict=True)):
        got = answers[0][index][1]
        assert np.abs(got - one).max() <= TOLERANCE, size
        assert np.abs(levels(got) - levels(one)).max() <= 1, size
        assert len({answer[index][0] for answer in answers}) == 1, "ranks must agree bit by bit"


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("rows", [4, 5, 23, 146])
def test_in_double_precision_only_the_order_of_additions_differs(world, root, library, degree, rows):
    size = (3, rows, 2)
    one = vae_ranks.decode_fp64(library, size)
    for got in world.run(vae_ranks.decode_shared_fp64, root, degree, size):
        assert np.abs(got - one).max() <= TOLERANCE_FP64


def test_longer_clips_in_levels_and_two_at_once(world, root, vae):
    size = (4, 7, 5)
    alone = [np.concatenate(list(vae.decode(vae_ranks.latents(*size, seed)))).astype(int) for seed in (0, 1)]
    for got in world.run(vae_ranks.decode_levels, root, 4, size):
        assert got.dtype == np.uint8
        assert np.abs(got - alone[0]).max() <= 1
    for together in world.run(vae_ranks.decode_two_at_once, root, 2, size):
        assert all(np.abs(got - one).max() <= 1 for got, one in zip(together, alone, strict=True))


def test_a_decode_that_all_ranks_leave_early_disturbs_no_other(world, root):
    size = (3, 6, 4)
    before = world.run(vae_ranks.decode, root, 2, [size])
    world.run(vae_ranks.decode_one_chunk, root, 2, size)
    assert world.run(vae_ranks.decode, root, 2, [size])[1] == before[1]


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("rows", [4, 7, 23])
def test_encoding_equals_one_process(world, root, vae, degree, rows):
    size = (5, rows * STRIDE_S, 16)
    expected = [moment.numpy() for moment in vae.encode(vae_ranks.video(*size))]
    answers = world.run(vae_ranks.encode, root, degree, size)
    for answer in answers:
        for got, one, first in zip(answer, expected, answers[0], strict=True):
            assert np.abs(got - one).max() <= TOLERANCE
            assert np.array_equal(got, first), "ranks must agree bit by bit"


def test_references_are_encoded_as_in_one_process(world, root, vae):
    size = (3, 56, 32)
    expected = vae.encode_references(vae_ranks.video(*size)[0].transpose(0, 1)).mean_KCHW.numpy()
    for got in world.run(vae_ranks.encode_references, root, 4, size):
        assert np.abs(got - expected).max() <= TOLERANCE


@pytest.mark.parametrize(("call", "size"), [(vae_ranks.decode_one_chunk, (2, 3, 2)), (vae_ranks.encode, (1, 24, 16))])
def test_too_thin_a_picture_is_refused_by_all_ranks_and_the_next_one_runs(world, root, call, size):
    for failure in world.attempt(call, root, 4, size):
        assert isinstance(failure, Failure)
        assert failure.kind == "Unsupported"
        assert failure.message == (
            "A picture 24 pixels high has 3 latent rows, too few for 4 ranks; share the VAE among at most 3."
        )
    world.run(vae_ranks.decode_one_chunk, root, 4, (2, 4, 2))


def test_nothing_is_kept_for_sizes_that_were_seen(world, root):
    for columns in (2, 3, 4):
        world.run(vae_ranks.decode, root, 2, [(2, 4, columns)])
    for parts, nbytes in world.run(vae_ranks.kept_bytes, root, 2):
        assert parts > 0
        assert nbytes == 0


def test_sharing_twice_is_refused(world, root):
    for failure in world.attempt(vae_ranks.share_again, root, 2):
        assert failure.kind == "Unsupported"
        assert "shared already" in failure.message


def test_sharing_with_nobody_changes_nothing(world, root):
    assert world.run(vae_ranks.share_alone, root) == [True] * 4


@pytest.mark.parametrize("share", [share_decode, share_encode])
def test_without_the_package_it_says_what_to_install(monkeypatch, vae, share):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda _group: 2)
    monkeypatch.setitem(sys.modules, "distvae.vae", None)
    with pytest.raises(Unsupported, match=r"needs the package distvae; install skyreels-serve\[parallel-vae\]"):
        share(vae)
