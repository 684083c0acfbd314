"""The stages whose work ranks share, over one controller."""

from __future__ import annotations

import logging
from dataclasses import replace

from cluster.chains import pieces
from cluster.config import Config
from cluster.pools import DENOISE, Pool
from deployments.call import Call, Result
from deployments.final import final_file, final_handle
from deployments.group.commands import Done
from deployments.group.controller import Controller, Told
from deployments.group.ranks import Ranks
from deployments.group.remote import RayRanks
from deployments.parts import OUT, collect, store_parts
from deployments.segments import SegmentRows
from deployments.telemetry import GroupMetrics


class GroupStage:
    """See `Stage`. Of `denoise` and `condition`: rank 0 writes the one result."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def run(self, call: Call) -> Result:
        """See `Stage.run`: admitted, done, and written by rank 0."""
        return await self._controller.run(call)

    def drain(self, deadline_s: float | None) -> None:
        self._controller.drain(deadline_s)

    @property
    def ailment(self) -> str | None:
        return self._controller.ailment

    async def close(self) -> None:
        await self._controller.close()


class GroupDecode(GroupStage):
    """Of `decode`: rank 0 writes segments, here they are told and become the final file."""

    async def run(self, call: Call) -> Result:
        """See `Stage.run`."""
        rows = SegmentRows(call)

        async def told(done: Done) -> None:
            await rows.add(done.segments)

        handed = await self._controller.run(call, told)
        await rows.finish()
        piece = next((piece for piece in pieces(call.request) if piece.chunk == call.work.call.ref.chunk), None)
        if piece is None:
            return handed
        parts = await collect(call, rows.files, piece.frames)
        if not call.last:
            return replace(handed, handles={**handed.handles, OUT: await store_parts(call, parts)})
        video = await final_file(call, parts)
        return Result({"video": final_handle(video)}, video)


async def start(config: Config, pool: Pool, log: logging.Logger, told: Told) -> dict[str, GroupStage]:
    """A running group for a pool, by stage; `told` learns which models it holds. ConfigError: its ranks do not start,
    or do not fit the model.
    """
    stages = pool.grouped or (DENOISE,)
    ranks = RayRanks(config, pool) if pool.grouped else _local(config, pool)
    residents = sum(pool.slots_of(stage) for stage in stages)
    metrics = GroupMetrics(pool.name, pool.ranks)
    controller = Controller(ranks, config, residents=residents, metrics=metrics, log=log, told=told)
    await controller.start()
    return {stage: (GroupDecode if stage == "decode" else GroupStage)(controller) for stage in stages}


def _local(config: Config, pool: Pool) -> Ranks:
    from deployments.group.local import LocalRanks  # noqa: PLC0415 (it computes here, so it needs torch)

    return LocalRanks(config, pool)
