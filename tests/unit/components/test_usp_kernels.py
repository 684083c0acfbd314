import itertools

import pytest
import torch

from components.errors import Unsupported
from components.usp import kernels

CPU = torch.device("cpu")


def attention(query_BNHD, key_BMHD, value_BMHD):
    """Plain softmax attention and its log-sum-exp, in double precision."""
    scores_BHNM = torch.einsum("bnhd,bmhd->bhnm", query_BNHD.double(), key_BMHD.double()) * query_BNHD.shape[-1] ** -0.5
    output_BNHD = torch.einsum("bhnm,bmhd->bnhd", scores_BHNM.softmax(-1), value_BMHD.double())
    return output_BNHD, scores_BHNM.logsumexp(-1)


def sample(queries, keys, heads=3, width=12):
    generator = torch.Generator().manual_seed(queries * 100 + keys)
    query_BNHD = torch.randn((2, queries, heads, width), generator=generator)
    key_BMHD, value_BMHD = (torch.randn((2, keys, heads, width), generator=generator) for _ in range(2))
    return query_BNHD, key_BMHD, value_BMHD


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 5), (33, 64)])
def test_partial_reports_output_and_logsumexp(queries, keys):
    kernel = kernels.pick_partial("native", CPU, torch.float32, head_width=12)
    query, key, value = sample(queries, keys)
    output, logsumexp = kernel(query, key, value)
    expected, expected_logsumexp = attention(query, key, value)
    torch.testing.assert_close(output.double(), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(logsumexp.double(), expected_logsumexp, atol=2e-6, rtol=0)


def test_whole_is_the_library_s_attention():
    query, key, value = sample(9, 21)
    torch.testing.assert_close(
        kernels.whole("native", query, key, value).double(), attention(query, key, value)[0], atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 40), (10, 20, 30, 50)])
def test_parts_join_to_the_whole_in_any_order(cuts):
    query, key, value = sample(11, 64)
    edges = [0, *cuts, 64]
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    for order in (parts, parts[::-1]):
        output, logsumexp = (x.float() for x in attention(query, key[:, order[0]], value[:, order[0]]))
        for part in order[1:]:
            other = (x.float() for x in attention(query, key[:, part], value[:, part]))
            output, logsumexp = kernels.merge(output, logsumexp, *other)
        torch.testing.assert_close(output.double(), attention(query, key, value)[0], atol=2e-6, rtol=0)


def test_extreme_scores_join_without_overflow():
    output, logsumexp = kernels.merge(
        torch.ones(1, 1, 1, 2), torch.tensor([[[900.0]]]), torch.zeros(1, 1, 1, 2), torch.tensor([[[-900.0]]])
    )
    assert output.tolist() == [[[[1.0, 1.0]]]]
    assert logsumexp.item() == 900.0


def test_joining_to_nothing_changes_nothing():
    output, logsumexp = (x.float() for x in attention(*sample(5, 9)))
    none = torch.zeros_like(output), torch.full_like(logsumexp, -torch.inf)
    joined = kernels.merge(*none, output, logsumexp)
    assert torch.equal(joined[0], output)
    assert torch.equal(joined[1], logsumexp)


@pytest.mark.parametrize("backend", ["_native_math", "_native_cudnn", "xformers", "yunchang:TORCH_MATH"])
def test_backends_without_a_true_logsumexp_are_refused(backend):
    with pytest.raises(Unsupported, match=f"'{backend}' cannot run in a ring because it .*; use a layout with ring 1"):
        kernels.pick_partial(backend, CPU, torch.float32, head_width=12)


def test_a_kernel_that_reports_zeros_is_caught(monkeypatch):
    def zeros(query_BNHD, key_BMHD, value_BMHD):
        output_BNHD = kernels.whole("native", query_BNHD, key_BMHD, value_BMHD)
        return output_BNHD, torch.zeros(output_BNHD.shape[0], output_BNHD.shape[2], output_BNHD.shape[1])

    monkeypatch.setattr(kernels, "_PARTIALS", {("cpu", "native"): zeros})
    with pytest.raises(Unsupported, match="joins the parts of a ring wrongly"):
        kernels.pick_partial("native", CPU, torch.float32, head_width=12)


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError, NameError])
def test_a_kernel_that_fails_is_refused_with_its_reason(monkeypatch, kind):
    def broken(*_):
        raise kind("no such instruction")

    monkeypatch.setattr(kernels, "_PARTIALS", {("cpu", "native"): broken})
    with pytest.raises(Unsupported, match=r"does not work in a ring here.*no such instruction"):
        kernels.pick_partial("native", CPU, torch.float32, head_width=12)
