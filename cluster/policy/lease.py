"""When leases may be judged.

A worker renews its leases through the store. While the store is out nobody can, so a lease that ran out then says
nothing about its worker: after every outage all get one whole time-to-live to renew before anything is reaped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Grace:
    """What one observer knows of its contact with the store. Times are seconds of a monotonic clock of its own.

    A new observer has no contact yet: it cannot know what happened before it started.
    """

    ttl_s: float
    since: float | None = None  # unbroken contact since then
    last: float | None = None

    def contact(self, at: float) -> Grace:
        """The store answered at `at`. A silence longer than a time-to-live counts as an outage: nobody looked."""
        unbroken = self.since is not None and self.last is not None and at - self.last <= self.ttl_s
        return replace(self, since=self.since if unbroken else at, last=at)

    def outage(self) -> Grace:
        """The store did not answer."""
        return replace(self, since=None, last=None)

    @property
    def reap_from(self) -> float | None:
        """The moment from which leases may be judged, as things stand; None during an outage."""
        return None if self.since is None else self.since + self.ttl_s

    def may_reap(self, at: float) -> bool:
        """Whether leases may be judged at `at`."""
        return self.reap_from is not None and at >= self.reap_from
