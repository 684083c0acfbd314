"""News: who waits for somebody else's commit is woken by it instead of looking again and again.

A transaction collects what it changes by topic and, where that makes sense, by job. After its commit every `Watch` of
this process hears of it; other processes hear of it if the database can carry the word (`Hub.connected`). News are
hints to look, never the facts themselves: one may come for nothing, and where none can come a wait ends early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Set
from enum import StrEnum
from weakref import WeakSet

POLL_S = 0.5


class Topic(StrEnum):
    """What somebody may wait for."""

    WORK = "work"  # the Scheduler may have something to do that no ack tells it
    EVENTS = "events"  # a job's log has grown; the key is the job's id
    DELIVERIES = "deliveries"  # there is something to send


News = Mapping[Topic, Set[str]]  # topic → keys; no keys at all: any of them


class Watch:
    """One reader's view of a topic. Make it before the first look: what is committed afterwards is never missed."""

    def __init__(self, hub: Hub, topic: Topic, key: str | None, poll_s: float) -> None:
        self._hub = hub
        self._topic = topic
        self._key = key
        self._poll_s = poll_s
        self._told = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Returns when something has been committed since the last return (True), or after `timeout_s`.

        While other processes' commits cannot be heard, it returns after `poll_s` at the latest: look and wait again.
        """
        try:
            async with asyncio.timeout(timeout_s if self._hub.connected else min(timeout_s, self._poll_s)):
                return await self._told.wait()
        except TimeoutError:
            return False
        finally:
            self._told.clear()

    def tell(self) -> None:
        """Ends the wait, or the next one."""
        self._told.set()

    def wants(self, news: News) -> bool:
        """Whether these news are of the topic and not only of other keys."""
        keys = news.get(self._topic)
        return keys is not None and (not keys or self._key is None or self._key in keys)


class Hub:
    """The watches of one process on one database."""

    def __init__(self) -> None:
        self._watches: WeakSet[Watch] = WeakSet()
        self._connected = False

    @property
    def connected(self) -> bool:
        """Whether other processes' commits are heard at once."""
        return self._connected

    def connect(self, connected: bool) -> None:
        """Begins or ends hearing of others. Either way everybody looks once: something may have been missed."""
        self._connected = connected
        self.tell({topic: set() for topic in Topic})

    def watch(self, topic: Topic, key: str | None, poll_s: float) -> Watch:
        """A new watch, forgotten when nobody holds it any more."""
        watch = Watch(self, topic, key, poll_s)
        self._watches.add(watch)
        return watch

    def tell(self, news: News) -> None:
        """Wakes whom it concerns."""
        for watch in self._watches:
            if watch.wants(news):
                watch.tell()


def wakes_scheduler(told: Iterable[tuple[str, Mapping[str, object]]]) -> bool:
    """Whether a job's new events (type, data) are WORK.

    A stage that completes is none: its ack wakes the Scheduler and brings the hints that the next stage is to be sent.
    """
    states = {(kind, data.get("state")) for kind, data in told}
    if ("stage", "done") in states:
        return False
    ended = {("state", state) for state in ("cancelled", "failed", "expired")}
    return ("stage", "ready") in states or bool(states & ended)
