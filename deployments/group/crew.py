"""The ranks of one group under numbered commands: brought up, watched, and made anew in the same place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

from cluster.config import Denoise
from deployments.group.commands import Command, Done, Failed, Load, Outcome
from deployments.group.ranks import GroupBroken, Ranks


class Crew:
    """Orders all ranks of a group alike; every order ends by an answer, a death, or a timeout."""

    def __init__(self, ranks: Ranks, limits: Denoise, models: Sequence[str], log: logging.Logger) -> None:
        """`models` are loaded first; nothing runs until `build`."""
        self._ranks = ranks
        self._limits = limits
        self._log = log
        self._on_death: Callable[[], None] = lambda: None
        self.models = list(models)  # that are loaded, the one used longest ago first
        self._weights: dict[str, str] = {}  # by model: what the ranks say they have loaded
        self.number = 0  # of the newest command

    @property
    def alive(self) -> bool:
        """False once any rank has died."""
        return self._ranks.alive

    async def order(self, command: Command, bound_s: float | None = None) -> Sequence[Outcome]:
        """Gives all ranks a command; the answers by rank.

        Raises:
            GroupBroken: see `Ranks.call`; also when an answer takes longer than `bound_s` or `step_timeout_s`.
        """
        self.number += 1
        bound_s = self._limits.step_timeout_s if bound_s is None else bound_s
        try:
            async with asyncio.timeout(bound_s):
                return await self._ranks.call(self.number, command)
        except TimeoutError:
            reason = f"no answer to {type(command).__name__} within {bound_s:.1f} s"
            raise GroupBroken("hang", reason) from None

    async def load(self, model: str, instead_of: str | None = None) -> None:
        """Loads weights, after those of another model have gone; fresh ranks will load the same. GroupBroken."""
        outcomes = await self.order(Load(model, instead_of), self._limits.load_timeout_s)
        if failed := failure(outcomes):
            raise GroupBroken("load", failed.reason, failed)
        self._weights[model] = agreed(outcomes).weights
        self.check(model, outcomes)
        self.models = [name for name in self.models if name not in {model, instead_of}] + [model]

    def check(self, model: str, outcomes: Sequence[Outcome]) -> None:
        """Every rank worked with the weights that were loaded as this model. GroupBroken."""
        if {outcome.weights for outcome in outcomes if isinstance(outcome, Done)} != {self._weights[model]}:
            raise GroupBroken("protocol", f"not all ranks worked with the weights of {model}: {outcomes}")

    def used(self, model: str) -> None:
        """A loaded model is used now."""
        self.models.remove(model)
        self.models.append(model)

    async def build(self, on_death: Callable[[], None]) -> None:
        """Brings fresh ranks up with the present models; `on_death` is called when one dies. GroupBroken."""
        self._on_death = on_death
        self.number = 0
        try:
            async with asyncio.timeout(self._limits.load_timeout_s):
                await self._ranks.start(on_death)
        except TimeoutError:
            raise GroupBroken("start", f"the ranks did not start in {self._limits.load_timeout_s:.0f} s") from None
        for model in tuple(self.models):
            await self.load(model)

    async def rebuild(self, broken: GroupBroken) -> str | None:
        """Ends all ranks and makes new ones; the reason when `max_rebuilds` attempts in a row failed."""
        reason = broken.reason
        for _ in range(self._limits.max_rebuilds):
            try:
                await self._ranks.stop()
                await self.build(self._on_death)
            except GroupBroken as again:
                reason = again.reason
                self._log.error("rebuild failed: %s", reason, extra={"kind": again.kind})
                continue
            return None
        return reason

    async def stop(self) -> None:
        """Ends the ranks. GroupBroken: one is left behind."""
        await self._ranks.stop()


def failure(outcomes: Sequence[Outcome]) -> Failed | None:
    """The first failure; one is enough."""
    return next((outcome for outcome in outcomes if isinstance(outcome, Failed)), None)


def agreed(outcomes: Sequence[Outcome]) -> Done:
    """The answer of rank 0, which the others share but for what it wrote. GroupBroken when they are elsewhere."""
    first = outcomes[0]
    steps = [outcome.step for outcome in outcomes if isinstance(outcome, Done)]
    if not isinstance(first, Done) or steps != [first.step] * len(outcomes):
        _disagree(outcomes)
    return first


def _disagree(outcomes: Sequence[Outcome]) -> NoReturn:
    raise GroupBroken("protocol", f"the ranks disagree: {outcomes}")
