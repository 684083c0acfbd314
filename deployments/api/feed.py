"""One poller per Api replica serves every open event stream from the durable log.

A stream holds a cursor and a short queue. The poller reads on for streams whose queue is empty and leaves those with a
slow client alone, so a client costs at most `QUEUE` events of memory and delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence

from cluster.deliveries import STATE
from cluster.errors import Unavailable
from cluster.records import Event, JobState
from cluster.store.base import JobStore
from cluster.store.news import Topic, Watch

POLL_S = 0.25
GAP_S = 0.05  # one reading serves a burst of news
QUEUE = 100


class Subscription:
    """One stream's place in one job's log."""

    def __init__(self, job_id: str, after: int, watch: Watch) -> None:
        self.job_id = job_id
        self.cursor = after  # the last event that was queued
        self.gone = False  # the job was deleted
        self._queue: deque[Event] = deque()
        self._news = asyncio.Event()
        self._watch = watch

    @property
    def hungry(self) -> bool:
        """Whether everything queued has been taken."""
        return not self._queue

    def offer(self, events: Sequence[Event]) -> None:
        """Queues what follows the cursor, as far as there is room."""
        for event in events:
            if event.seq == self.cursor + 1 and len(self._queue) < QUEUE:
                self._queue.append(event)
                self.cursor = event.seq
                self._news.set()

    def close(self) -> None:
        """There will be nothing more."""
        self.gone = True
        self._news.set()

    async def next(self, timeout_s: float) -> Event | None:
        """The next event; None when the time is over or the job is gone."""
        if not self._queue and not self.gone:
            self._news.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return None
        if not self._queue:
            return None
        event = self._queue.popleft()
        if not self._queue:
            self._watch.tell()
        return event


class Feed:
    """The open streams of one replica. Polls only while there are any."""

    def __init__(self, store: JobStore, log: logging.Logger, *, most: int) -> None:
        self._store = store
        self._log = log
        self._most = most
        self._open: set[Subscription] = set()
        self._watch: Watch | None = None
        self._poller: asyncio.Task[None] | None = None

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._open)

    def subscribe(self, job_id: str, after: int) -> Subscription:
        """Opens a stream behind sequence number `after`. Unavailable when too many are open."""
        if len(self._open) >= self._most:
            raise Unavailable("Too many event streams are open; poll the video instead, or try again.", retry_after_s=5)
        if self._watch is None:
            self._watch = self._store.watch(Topic.EVENTS)
        subscription = Subscription(job_id, after, self._watch)
        self._open.add(subscription)
        self._watch.tell()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(self._watch))
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Closes a stream; again is fine."""
        self._open.discard(subscription)

    async def _poll(self, watch: Watch) -> None:
        while self._open:
            hungry = [one for one in self._open if one.hungry and not one.gone]
            cursors: dict[str, int] = {}
            for one in hungry:
                cursors[one.job_id] = min(one.cursor, cursors.get(one.job_id, one.cursor))
            if cursors and await self._read(cursors, hungry):
                continue
            await watch.wait(POLL_S)
            await asyncio.sleep(GAP_S)

    async def _read(self, cursors: Mapping[str, int], hungry: Sequence[Subscription]) -> bool:
        """One reading for all; True when there may be more at once."""
        try:
            found = await self._store.feed(cursors, limit=QUEUE)
        except Unavailable as error:
            self._log.warning("event streams wait: %s", error)
            return False
        for one in hungry:
            if one.job_id in found:
                one.offer(found[one.job_id])
            else:
                one.close()
        return any(len(events) == QUEUE for events in found.values())


def ends(event: Event) -> bool:
    """Whether this is the last event of a log."""
    return event.type == STATE and JobState(str(event.data["state"])).terminal
