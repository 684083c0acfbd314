"""Ranks as Ray actors: in the replica's placement group, where the pool says, and dead when the replica is.

Ray may notice a death late: a call to a dead actor then waits, although another call to the same actor has failed
already. So each rank has one call that never returns, and its failure ends every other wait for that group.

A rank's compute has a thread of its own, always the same one: CUDA's current device and the collectives belong to a
thread. The actor's event loop stays free, so a call that never returns shows the process's death at once.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.config import Config
from cluster.pools import DENOISE, TEXT, Pool
from deployments.group.commands import Command, Failed, Outcome
from deployments.group.ranks import GroupBroken

if TYPE_CHECKING:
    from deployments.group.member import Member

STOP_S = 30.0


class RankProcess(ABC):
    """The actor of one rank; its process is titled by the name of the class."""

    def __init__(self, config: Config, pool: Pool, rank: int) -> None:
        self._thread = ThreadPoolExecutor(1, "rank")
        self._rank = self._thread.submit(self._make, config, pool, rank).result()

    @staticmethod
    @abstractmethod
    def _make(config: Config, pool: Pool, rank: int) -> Member:
        """The rank itself. What computes is imported here only: the controller imports this module and stays light."""

    async def meeting_point(self) -> tuple[str, int]:
        """This node's address and a port that is free there now."""
        address = ray.util.get_node_ip_address()
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
            return address, int(probe.getsockname()[1])

    async def join(self, address: str, port: int) -> None:
        """See `Member.join`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._rank.join, address, port)

    async def execute(self, number: int, command: Command) -> Outcome:
        """See `Member.execute`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._rank.execute, number, command)

    async def live(self) -> None:
        """Never returns; its caller sees the end of this process."""
        await asyncio.Event().wait()


class DenoiserRank(RankProcess):
    """One rank of a denoiser group."""

    @staticmethod
    def _make(config: Config, pool: Pool, rank: int) -> Member:
        from deployments.group.rank import Rank  # noqa: PLC0415

        return Rank(config, pool, rank)


class VaeRank(RankProcess):
    """One rank that shares the VAE's work."""

    @staticmethod
    def _make(config: Config, pool: Pool, rank: int) -> Member:
        from deployments.group.vae_rank import VaeMember  # noqa: PLC0415

        return VaeMember(config, pool, rank)


class TextRank(RankProcess):
    """One rank that shares text encoders."""

    @staticmethod
    def _make(config: Config, pool: Pool, rank: int) -> Member:
        from deployments.group.text_rank import TextMember  # noqa: PLC0415

        return TextMember(config, pool, rank)


def kind_of(pool: Pool) -> type[RankProcess]:
    """What the ranks of a pool's group are."""
    return {DENOISE: DenoiserRank, TEXT: TextRank}.get(pool.grouped[0], VaeRank)


class RayRanks:
    """See `Ranks`."""

    def __init__(self, config: Config, pool: Pool) -> None:
        self._config = config
        self._pool = pool
        self._actors: list[Any] = []
        self._lives: list[asyncio.Task[None]] = []
        self._death: asyncio.Future[RayError] | None = None  # the first one's error; None while stopped

    @property
    def alive(self) -> bool:
        return self._death is not None and not self._death.done()

    async def start(self, on_death: Callable[[], None]) -> None:
        bundles = ray.util.get_current_placement_group()
        kind = kind_of(self._pool)
        actor = ray.remote(max_restarts=0, num_cpus=self._pool.num_cpus, num_gpus=self._pool.num_gpus)(kind)
        options: dict[str, Any] = {"label_selector": self._pool.labels} if self._pool.labels else {}
        for rank in range(self._pool.ranks):
            bundle = self._pool.bundle_of(rank)
            place = options if bundles is None else {"scheduling_strategy": _bundle(bundles, bundle)}
            self._actors.append(actor.options(**place).remote(self._config, self._pool, rank))
        self._death = asyncio.get_running_loop().create_future()
        self._lives = [asyncio.create_task(self._watch(one, on_death)) for one in self._actors]
        try:
            ((address, port),) = await self._answers([self._actors[0].meeting_point.remote()])
            await self._answers([one.join.remote(address, port) for one in self._actors])
        except RayError as error:
            raise GroupBroken("start", f"the ranks did not meet: {_told(error)}") from error

    async def call(self, number: int, command: Command) -> Sequence[Outcome]:
        try:
            return await self._answers([one.execute.remote(number, command) for one in self._actors], _refuse_broken)
        except RayTaskError as error:
            raise GroupBroken("protocol", f"a rank refuses to go on: {_told(error)}") from error
        except RayError as error:
            raise GroupBroken("death", f"a rank is lost: {_told(error)}") from error

    async def _answers(self, references: Sequence[Any], check: Callable[[Any], None] = lambda _: None) -> list[Any]:
        """All answers in order, as soon as there are all; or the first error, or the first one that `check` refuses.

        Raises:
            GroupBroken: the ranks are stopped, or from `check`.
            RayError: a call failed, or a rank has died, whether or not the calls know it.
        """
        if self._death is None:
            raise GroupBroken("stopped", "the ranks are not started")
        calls = [asyncio.ensure_future(reference) for reference in references]
        pending: set[asyncio.Future[Any]] = set(calls)
        try:
            while pending:
                done, pending = await asyncio.wait({*pending, self._death}, return_when=asyncio.FIRST_COMPLETED)
                for answer in done - {self._death}:
                    check(answer.result())
                if pending and self._death in done:
                    raise self._death.result()
                pending.discard(self._death)
            return [call.result() for call in calls]
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def stop(self) -> None:
        self._death = None
        for actor in self._actors:
            ray.kill(actor)
        if self._lives:
            _, left = await asyncio.wait(self._lives, timeout=STOP_S)
            if left:
                raise GroupBroken("hang", f"{len(left)} ranks could not be killed within {STOP_S:.0f} s")
        self._actors, self._lives = [], []

    async def _watch(self, actor: Any, on_death: Callable[[], None]) -> None:
        """Until the process has ended; the first death of a group that is not being stopped is told."""
        try:
            await actor.live.remote()
        except RayError as error:
            if self._death is not None and not self._death.done():
                self._death.set_result(error)
                on_death()


def _refuse_broken(outcome: Outcome) -> None:
    if isinstance(outcome, Failed) and outcome.broken:
        raise GroupBroken("collective", outcome.reason, outcome)


def _bundle(group: Any, index: int) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)


def _told(error: RayError) -> str:
    """The line that says it: a raised error is at the end of its stack, a death at the beginning of its details."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raised = isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False)
    return str(lines[-1] if raised else lines[0]).strip()
