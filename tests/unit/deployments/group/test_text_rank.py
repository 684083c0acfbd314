"""A member of a text group, alone and without Ray: what it is told, what it writes, what it forgets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import torch

from components.device import Placement
from components.text import TextEncoder
from components.values import TextContext
from deployments.artifacts import ArtifactStore, job_key
from deployments.group import commands
from deployments.group.commands import Done, Failed
from deployments.group.text_rank import TextMember
from deployments.transport import DurableTransport
from tests.unit.cluster.makers import request
from tests.unit.deployments.group.jobs import config
from tests.unit.deployments.group.test_vae_rank import stage_work

MODEL = "skyreels-v3-r2v"


def test_a_prompt_is_encoded_and_written_by_rank_0(root: Path, tmp_path: Path) -> None:
    place = config(root, tmp_path)
    work = stage_work("text", "job", request(prompt="a cat", guidance=2.0, negative_prompt="rain"))
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


def test_a_snapshot_is_none_of_its_commands(root: Path, tmp_path: Path) -> None:
    place = config(root, tmp_path)
    member = TextMember(place, place.pools[0], 0)
    member.execute(1, commands.Prepare("job", stage_work("text", "job", request())))
    assert isinstance(member.execute(2, commands.Snapshot("job", "key")), Failed)
    member.close()
