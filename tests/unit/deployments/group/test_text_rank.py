"""Members of a text group without Ray: what they are told, what they write, what they forget."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from cluster.pools import Pool
from components.device import Placement
from components.text import TextEncoder
from components.values import PromptText, TextContext
from deployments.artifacts import ArtifactStore, job_key
from deployments.group import commands
from deployments.group.commands import Done, Failed
from deployments.group.remote import DenoiserRank, TextRank, VaeRank, kind_of
from deployments.group.text_rank import TextMember
from deployments.transport import DurableTransport
from tests.unit.cluster.makers import request
from tests.unit.components.world import World
from tests.unit.deployments.group import text_members
from tests.unit.deployments.group.jobs import config
from tests.unit.deployments.group.test_vae_rank import stage_work

MODEL = "skyreels-v3-r2v"


@pytest.mark.parametrize(("asked", "extended"), [("a cat", None), ("cat", "a cat")])
def test_a_prompt_is_encoded_and_written_by_rank_0(
    root: Path, tmp_path: Path, asked: str, extended: str | None
) -> None:
    place = config(root, tmp_path)
    work = stage_work("text", "job", request(prompt=asked, guidance=2.0, negative_prompt="rain"))
    if extended is not None:
        transport = DurableTransport(ArtifactStore(place.artifacts_root), cache_nbytes=0)
        handle = asyncio.run(transport.put(job_key("job", "work", "prompt"), PromptText.of(extended)))
        work = replace(work, inputs={"prompt": handle})
    key = job_key("job", "work", "")
    done = {}
    for rank in (0, 1):
        member = TextMember(place, place.pools[0], rank)
        orders = (
            commands.Load(MODEL),
            commands.Prepare("job", work),
            commands.Commit("job"),
            commands.Step("job"),
            commands.Finish("job", key),
            commands.Drop("job"),
            commands.Step("job"),
        )
        answers = [member.execute(number, order) for number, order in enumerate(orders, start=1)]
        member.close()
        assert all(isinstance(answer, Done) for answer in answers[:-1]), answers
        assert isinstance(answers[-1], Failed)  # it is forgotten
        assert [answer.step for answer in answers[1:5] if isinstance(answer, Done)] == [0, 0, 1, 1]
        assert isinstance(answers[4], Done)
        done[rank] = answers[4]
    assert not done[1].handles
    store = ArtifactStore(place.artifacts_root)
    context = asyncio.run(DurableTransport(store, cache_nbytes=0).get(done[0].handles["context"]))
    assert isinstance(context, TextContext)
    expected = TextEncoder.load(root, Placement.of("cpu")).encode("a cat", "rain")
    assert torch.equal(context.prompt_BLD, expected.prompt_BLD)
    assert torch.equal(context.negative_BLD, expected.negative_BLD)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed (extra deepspeed)")
@pytest.mark.timeout(300)
def test_two_members_share_an_encoder_and_write_what_one_gives(root: Path, tmp_path: Path) -> None:
    place = config(root, tmp_path)
    work = stage_work("text", "job", request(prompt="a cat"))
    with World(2) as world:
        world.run(text_members.load_library)
        first, second = world.run(text_members.encode, place, work, job_key("job", "work", ""))
    assert all(isinstance(answer, Done) for answer in (*first, *second)), (first, second)
    store = ArtifactStore(place.artifacts_root)
    context = asyncio.run(DurableTransport(store, cache_nbytes=0).get(first[-1].handles["context"]))
    assert isinstance(context, TextContext)
    expected = TextEncoder.load(root, Placement.of("cpu")).encode("a cat", None)
    torch.testing.assert_close(context.prompt_BLD, expected.prompt_BLD, rtol=0, atol=1e-5)


def test_a_pools_ranks_are_of_its_kind(root: Path, tmp_path: Path) -> None:
    vae = Pool(name="Vae", stages=("condition", "decode"), ranks=2)
    denoiser = Pool(name="All", stages=("text", "denoise"), ranks=2)
    found = [kind_of(pool) for pool in (text_members.POOL, vae, denoiser)]
    assert found == [TextRank, VaeRank, DenoiserRank]
    member = TextRank._make(config(root, tmp_path), text_members.POOL, 0)
    assert isinstance(member, TextMember)
    member.close()


def test_a_snapshot_is_none_of_its_commands(root: Path, tmp_path: Path) -> None:
    place = config(root, tmp_path)
    member = TextMember(place, place.pools[0], 0)
    member.execute(1, commands.Prepare("job", stage_work("text", "job", request())))
    assert isinstance(member.execute(2, commands.Snapshot("job", "key")), Failed)
    member.close()
