"""All ranks of a group as its controller sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from deployments.group.commands import Command, Failed, Outcome


class GroupBroken(Exception):
    """The ranks cannot go on together: one died, hangs, or left a collective. They are ended and made anew."""

    def __init__(self, kind: str, reason: str, failed: Failed | None = None) -> None:
        """`kind` is a label of metrics, from a bounded set; `failed` is the answer of the rank that broke off."""
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.failed = failed


class Ranks(Protocol):
    """Starts, orders and ends ranks. Used from one event loop; one call at a time."""

    @property
    def alive(self) -> bool:
        """False once any rank has died."""

    async def start(self, on_death: Callable[[], None]) -> None:
        """Makes fresh ranks that have met each other and hold nothing. `on_death` is called when one dies later on.

        Raises:
            GroupBroken: they did not come up.
        """

    async def call(self, number: int, command: Command) -> Sequence[Outcome]:
        """Gives all ranks the command; their answers in the order of ranks, none of them `broken`.

        Raises:
            GroupBroken: as soon as one rank dies, refuses the number, or answers `broken`; the others may hang.
        """

    async def stop(self) -> None:
        """Ends every rank, whatever it does, and returns when they are gone.

        Raises:
            GroupBroken: one cannot be ended from here.
        """
