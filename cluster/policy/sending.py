"""When a failed send is tried again, and which receivers may be sent to now: pure, the clock and the dice as data."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

REMEMBERED = 4096  # receivers whose last answer is kept in mind
UNKNOWN_ROOM = 1  # sends at once to a receiver that has not answered well yet


def backoff_s(attempt: int, *, first_s: float, most_s: float, dice: float) -> float:
    """Seconds to wait after the `attempt`th failure, from 1: doubled each time, at most `most_s`, and then spread by
    `dice` (0.0 … 1.0) over the upper half, so that receivers do not get all their retries at once.
    """
    # 2 ** 64 seconds is beyond every limit; a larger power would overflow a float.
    return min(first_s * 2.0 ** min(attempt - 1, 64), most_s) * (0.5 + dice / 2)


class Receivers:
    """Who is being sent to, and how it went last time.

    A receiver gets `per_host` sends at once after a good answer and one before it. Those that failed last time share
    half of all slots, so that however many they are, the others keep the other half.
    """

    def __init__(self, *, concurrency: int, per_host: int) -> None:
        self._concurrency = concurrency
        self._per_host = per_host
        self._running: Counter[str] = Counter()
        self._last: OrderedDict[str, bool] = OrderedDict()  # whether it went well

    def healthy(self) -> tuple[int, Mapping[str, int]]:
        """How many sends may begin to receivers that did not fail last time, and the room of each that is not unknown
        and idle.
        """
        room = {host: UNKNOWN_ROOM - count for host, count in self._running.items()}
        for host, well in self._last.items():
            room[host] = self._per_host - self._running[host] if well else 0
        return self._free, room

    def failing(self) -> tuple[int, Mapping[str, int]]:
        """The same with those that failed last time."""
        bad = [host for host, well in self._last.items() if not well]
        shared = max(1, self._concurrency // 2) - sum(self._running[host] for host in bad)
        room = dict(self.healthy()[1]) | {host: UNKNOWN_ROOM - self._running[host] for host in bad}
        return (max(0, min(self._free, shared)) if bad else 0), room

    def begin(self, host: str) -> None:
        """A send to this receiver runs."""
        self._running[host] += 1

    def end(self, host: str, *, well: bool) -> None:
        """A send is over."""
        self._running[host] -= 1
        if self._running[host] <= 0:
            del self._running[host]
        self._last[host] = well
        self._last.move_to_end(host)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)

    @property
    def _free(self) -> int:
        return self._concurrency - self._running.total()
