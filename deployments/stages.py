"""The table of stages that compute in their replica's process.

Adding one is one component, one class here, one row in `STAGES`, one graph node. Denoising runs in a group of ranks
instead (`deployments.group`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor

import torch

from cluster.config import Config
from cluster.pools import Pool
from deployments.artifacts import ArtifactStore
from deployments.cache import EncodingCache
from deployments.call import Call, Result
from deployments.decoding import DecodeStage
from deployments.encoding import ConditionStage, TextStage
from deployments.failures import translated
from deployments.portrait import AudioStage, VisionStage
from deployments.prompting import PromptStage
from deployments.room import Computation, Engine, Room
from deployments.source import SourceStage
from deployments.telemetry import logger
from deployments.transport import Transport
from deployments.transport_ray import open_transport
from deployments.weights import Weights, resolve

HANDOFF_NBYTES = 512 * 2**20  # hand-off values kept in the process; the durable copy serves everybody else


STAGES: Mapping[str, Callable[[Weights], Computation]] = {
    "prompt": PromptStage,
    "text": TextStage,
    "audio": AudioStage,
    "vision": VisionStage,
    "condition": ConditionStage,
    "source": SourceStage,
    "decode": DecodeStage,
}


class ComputingStage:
    """A stage whose component computes in this process, on threads of its own."""

    def __init__(
        self, computation: Computation, transport: Transport, executor: Executor, cache: EncodingCache
    ) -> None:
        self._computation = computation
        self._transport = transport
        self._executor = executor
        self._cache = cache

    async def run(self, call: Call) -> Result:
        room = Room(
            lease=call.lease,
            store=call.store,
            artifacts=call.artifacts,
            metrics=call.metrics,
            scratch=call.scratch,
            hints=call.hints,
            laps=call.laps,
            transport=self._transport,
            executor=self._executor,
            cache=self._cache,
        )
        try:
            with translated():
                produced = await self._computation.run(room)
            call.lease.check()
            return await room.close(produced)
        finally:
            self._transport.release(call.key(""))
            call.metrics.handoff.publish(self._transport.counters)

    def drain(self, deadline_s: float | None) -> None:
        """Its calls are short: they end by themselves."""

    @property
    def ailment(self) -> str | None:
        return self._computation.ailment if isinstance(self._computation, Engine) else None

    async def close(self) -> None:
        await self._cache.settle()
        if isinstance(self._computation, Engine):
            await asyncio.to_thread(self._computation.close)
        self._executor.shutdown(wait=False)


def load(config: Config, pool: Pool, artifacts: ArtifactStore) -> dict[str, ComputingStage]:
    """Loads the weights of every stage of a pool that computes in this process; only these live in it."""
    torch.set_num_threads(pool.threads)
    weights = resolve(config, pool)
    cache = EncodingCache(artifacts, config.cache, logger())
    transport = open_transport(config, artifacts, cache_nbytes=HANDOFF_NBYTES)
    return {
        name: ComputingStage(STAGES[name](weights), transport, ThreadPoolExecutor(pool.slots_of(name), name), cache)
        for name in pool.stages
        if name in STAGES and name not in pool.grouped
    }
