"""What every transport promises. A subclass provides the `pair` fixture: two processes' ends over one storage."""

import dataclasses

import pytest
import torch

from cluster.errors import StageError
from cluster.records import Handle, TensorSpec, decode, encode
from components.values import Condition, Latents, TextContext, Value
from deployments.transport import Transport

Pair = tuple[Transport, Transport]


def text(dtype: torch.dtype = torch.bfloat16, rows: int = 6) -> TextContext:
    numbers = torch.randn(1, rows, 32, generator=torch.Generator().manual_seed(rows))
    return TextContext(prompt_BLD=numbers.to(dtype), negative_BLD=torch.zeros(1, 0, 32, dtype=dtype))


def condition() -> Condition:
    generator = torch.Generator().manual_seed(1)
    shape = (2, 16, 4, 6)
    return Condition(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))


def latents(scale: float = 1.0) -> Latents:
    return Latents(torch.linspace(-scale, scale, 16 * 3 * 4 * 6).reshape(1, 16, 3, 4, 6))


def same(left: Value, right: Value) -> bool:
    """Equal kind, dtypes, shapes and bits."""
    ours, theirs = left.tensors(), right.tensors()
    return left.kind == right.kind and all(
        ours[name].dtype == theirs[name].dtype
        and ours[name].shape == theirs[name].shape
        and torch.equal(ours[name].contiguous().view(torch.uint8), theirs[name].contiguous().view(torch.uint8))
        for name in ours.keys() | theirs.keys()
    )


class TransportContract:
    COPIES = 0  # of a value that is put: beside its file

    @pytest.fixture
    def pair(self) -> Pair:
        raise NotImplementedError

    @pytest.mark.parametrize(
        "value",
        [text(), text(torch.float32), text(torch.float16), condition(), latents()],
        ids=lambda value: value.kind,
    )
    async def test_round_trip_here_and_elsewhere(self, pair, value):
        here, elsewhere = pair
        handle = await here.put("jobs/a/work/value", value)
        assert same(await here.get(handle), value)
        assert same(await elsewhere.get(handle), value)

    async def test_the_handle_says_what_it_is(self, pair):
        handle = await pair[0].put("jobs/a/work/text-0-1-context", text())
        assert handle.key == "jobs/a/work/text-0-1-context" and handle.kind == "TextContext"
        assert handle.tensors == (
            TensorSpec("prompt_BLD", "bfloat16", (1, 6, 32)), TensorSpec("negative_BLD", "bfloat16", (1, 0, 32)),
        )  # fmt: skip
        assert handle.nbytes > 6 * 32 * 2

    async def test_the_handle_survives_the_store(self, pair):
        here, elsewhere = pair
        handle = decode(Handle, encode(await here.put("jobs/a/work/x", condition())))
        assert same(await here.get(handle), condition())
        assert same(await elsewhere.get(handle), condition())

    async def test_special_numbers_keep_their_bits(self, pair):
        odd = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, 3.4e38])
        value = Latents(odd.reshape(1, 1, 7, 1, 1))
        assert same(await pair[1].get(await pair[0].put("jobs/a/work/x", value)), value)

    async def test_views_and_shared_tensors(self, pair):
        whole = torch.arange(4 * 6 * 32, dtype=torch.float32).reshape(4, 6, 32)
        value = TextContext(prompt_BLD=whole[1:2], negative_BLD=whole[1:2].transpose(1, 2))
        assert same(await pair[1].get(await pair[0].put("jobs/a/work/views", value)), value)
        twice = TextContext(prompt_BLD=whole, negative_BLD=whole)
        assert same(await pair[1].get(await pair[0].put("jobs/a/work/twice", twice)), twice)

    async def test_tensors_with_gradients_are_detached(self, pair):
        value = Latents(latents().video_BCTHW.clone().requires_grad_())
        got = await pair[0].get(await pair[0].put("jobs/a/work/x", value))
        assert not got.tensors()["video_BCTHW"].requires_grad

    async def test_keys_do_not_mix(self, pair):
        here, elsewhere = pair
        handles = [await here.put(f"jobs/a/work/{n}", latents(n + 1)) for n in range(3)]
        for end in (elsewhere, here):
            for n in (2, 0, 1):
                assert same(await end.get(handles[n]), latents(n + 1))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"kind": "TextContext"},
            {"kind": "Artifact"},
            {"kind": "Nonsense"},
            {"tensors": ()},
            {"tensors": (TensorSpec("video_BCTHW", "bfloat16", (1, 16, 3, 4, 6)),)},
            {"tensors": (TensorSpec("video_BCTHW", "float32", (1, 16, 3, 6, 4)),)},
            {"tensors": (TensorSpec("video", "float32", (1, 16, 3, 4, 6)),)},
        ],
    )
    async def test_a_value_that_is_not_what_its_handle_says_is_refused(self, pair, wrong):
        handle = await pair[0].put("jobs/a/work/x", latents())
        for end in pair:
            with pytest.raises(StageError) as caught:
                await end.get(dataclasses.replace(handle, **wrong))
            assert not caught.value.retryable

    async def test_drop(self, pair):
        here, elsewhere = pair
        gone = [await here.put(key, latents()) for key in ("jobs/a/work/x", "jobs/a/work/deep/y")]
        kept = [await here.put(key, latents()) for key in ("jobs/a/work2/x", "jobs/ab/work/x")]
        await here.drop("jobs/a/work")
        await here.drop("jobs/a/work")
        await here.drop("jobs/never")
        for end in (here, elsewhere):
            for handle in gone:
                with pytest.raises(StageError, match="gone"):
                    await end.get(handle)
            for handle in kept:
                assert same(await end.get(handle), latents())

    async def test_bad_keys_are_refused(self, pair):
        with pytest.raises(ValueError, match="key"):
            await pair[0].put("../x", latents())

    async def test_counters(self, pair):
        here, elsewhere = pair
        first = await here.put("jobs/a/work/x", latents())
        second = await here.put("jobs/a/work/y", condition())
        assert here.counters.nbytes["file", "write"] == first.nbytes + second.nbytes
        copies = here.counters.copies.total()
        assert copies == 2 * self.COPIES
        await here.get(first)
        await here.get(first)
        assert here.counters.gets.total() == 2 and here.counters.gets["file"] == 0
        assert here.counters.nbytes["file", "read"] == 0
        assert here.counters.copies.total() == copies
        await elsewhere.get(first)
        assert elsewhere.counters.nbytes["file", "write"] == 0
        assert elsewhere.counters.gets == {"file": 1}
        assert elsewhere.counters.nbytes["file", "read"] == first.nbytes

    async def test_hints_change_nothing_but_the_path(self, pair):
        here, elsewhere = pair
        handles = [await here.put(f"jobs/a/work/{n}", latents(n + 1)) for n in range(2)]
        hints = here.lend(handles)
        assert hints.keys() <= {handle.key for handle in handles}
        for n, handle in enumerate(handles):
            assert same(await elsewhere.get(handle, hints.get(handle.key)), latents(n + 1))

    async def test_hints_outlive_their_release(self, pair):
        here, _ = pair
        handle = await here.put("jobs/a/work/denoise-0-1-x", latents())
        hints = here.lend([handle])
        here.release("jobs/a/work/denoise-0-1-")
        assert here.lend([handle]) == {}
        for end in pair:
            assert same(await end.get(handle, hints.get(handle.key)), latents())
            assert same(await end.get(handle), latents())

    async def test_release_ends_only_its_own(self, pair):
        here, _ = pair
        handles = [await here.put(key, latents()) for key in ("jobs/a/work/denoise-0-1-x", "jobs/a/work/denoise-0-2-x")]
        here.release("jobs/a/work/denoise-0-1-")
        assert here.lend(handles).keys() == here.lend(handles[1:]).keys()

    @pytest.mark.parametrize("hint", [object(), "a word", b"", 7, None])
    async def test_a_hint_that_is_none_costs_a_read(self, pair, hint):
        here, elsewhere = pair
        handle = await here.put("jobs/a/work/x", latents())
        assert same(await elsewhere.get(handle, hint), latents())
        assert elsewhere.counters.gets == {"file": 1}

    async def test_the_hint_of_another_value_costs_a_read(self, pair):
        here, elsewhere = pair
        wanted = await here.put("jobs/a/work/x", latents())
        other = await here.put("jobs/a/work/y", latents(2.0))
        assert same(await elsewhere.get(wanted, here.lend([other]).get(other.key)), latents())
        assert elsewhere.counters.gets == {"file": 1}
