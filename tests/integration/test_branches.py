"""The branches of a guided step on different ranks, as a pool's configuration says, on a bare Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deployments.group.local import LocalRanks
from deployments.group.ranks import Ranks
from deployments.group.remote import RayRanks
from tests.unit.deployments.group.jobs import Works, config

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]
GUIDED = {"guidance": 4.0, "guidance_image": 2.0, "steps": 3}


async def latents(works: Works, ranks: Ranks, job: str, **changes: float) -> torch.Tensor:
    controller = works.controller(ranks)
    await controller.start()
    latents_BCTHW = await works.latents(await controller.run(await works.call(job, **changes)))
    plain_BCTHW = await works.latents(await controller.run(await works.call(f"{job}-plain", steps=2)))
    await controller.close()
    return torch.cat([latents_BCTHW, plain_BCTHW])


async def test_a_guided_request_on_two_ranks_equals_one(bare_ray: Path) -> None:
    """One branch a rank and the third on both; the unguided job of the same group is shared by both."""
    folder, checkpoint = bare_ray / "branches", bare_ray / "tiny-r2v"
    alone, apart = Works(config(checkpoint, folder)), Works(config(checkpoint, folder, ranks=2, branches=2))
    expected = await latents(alone, LocalRanks(alone.config, alone.pool), "alone", **GUIDED)
    got = await latents(apart, RayRanks(apart.config, apart.pool), "apart", **GUIDED)
    assert float((got - expected).abs().max()) <= 1e-4
    assert float((expected[0] - expected[1]).abs().max()) > 0.1  # guidance does something
