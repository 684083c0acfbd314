"""The contract suite: whoever waits for a commit hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sized

import pytest

from cluster.records import Failure
from cluster.store import open_store
from cluster.store.news import Topic, Watch
from tests.unit.cluster.makers import worker
from tests.unit.cluster.store.play import TENANT, Play, outputs

LONG_S = 60.0
LOST = Failure("worker_lost", "The worker of this stage died.")


async def told(watch: Watch) -> bool:
    """Whether there is news already."""
    return await watch.wait(0.0)


async def quiet(watch: Watch) -> Watch:
    """A watch that has heard all there was, the beginning of the connection included."""
    while await watch.wait(0.2):
        pass
    return watch


class NewsContract:
    """News within one process are at once; from others they come with the database's help or by polling."""

    async def test_a_commit_before_the_wait_is_not_missed(self, play: Play) -> None:
        watch = play.store.watch(Topic.EVENTS)
        await play.create()
        assert await told(watch)

    async def test_a_wait_ends_with_the_commit(self, play: Play) -> None:
        watch = await quiet(play.store.watch(Topic.EVENTS, poll_s=LONG_S))
        waiting = asyncio.create_task(watch.wait(LONG_S))
        await play.create()
        assert await waiting
        assert not await told(watch)

    async def test_a_key_hears_of_itself_alone(self, play: Play) -> None:
        mine = await quiet(play.store.watch(Topic.EVENTS, key="mine"))
        other = await quiet(play.store.watch(Topic.EVENTS, key="other"))
        await play.create("mine")
        assert (await told(mine), await told(other)) == (True, False)

    async def test_what_is_rolled_back_is_no_news(self, play: Play) -> None:
        await play.create()
        watch = await quiet(play.store.watch(Topic.EVENTS))
        with pytest.raises(Exception, match="exists already"):
            await play.create()
        assert not await told(watch)

    async def test_other_processes_commits_are_seen(self, play: Play, store_url: str) -> None:
        other = open_store(store_url)
        await other.open()
        watch = other.watch(Topic.EVENTS, key="j1")
        await play.create()
        await _sees(lambda: other.events("j1", TENANT), 3, watch)
        call = (await play.take("text")).call
        await _sees(lambda: other.events("j1", TENANT), 7, watch)
        await play.store.complete(call, outputs("text"))
        await _sees(lambda: other.events("j1", TENANT), 8, watch)
        await other.close()

    async def test_what_is_work_for_the_scheduler(self, play: Play) -> None:
        store = play.store
        watch = await quiet(store.watch(Topic.WORK))

        async def news(step: Awaitable[object]) -> bool:
            await step
            return await told(watch)

        assert await news(store.register(worker("w1")))
        assert await news(play.create())
        assert not await news(play.dispatch("text"))
        assert await news(store.reap(play.leadership, dispatch_ttl_s=0, max_losses=2))
        call = (await play.take("text")).call
        assert not await told(watch)
        assert not await news(store.heartbeat("w1", [], LONG_S))
        assert await news(store.lose(call, LOST, max_losses=9))
        assert await news(store.release((await play.take("text")).call))
        # Its ack brings hints along; the store's news would outrun them.
        assert not await news(play.finish("text"))
        await play.finish("condition")
        await play.finish("denoise")
        assert not await news(play.finish("decode"))
        await play.create("j2")
        assert await told(watch)
        assert await news(store.cancel_job("j2", TENANT))


async def _sees(look: Callable[[], Awaitable[Sized]], count: int, watch: Watch) -> None:
    """Looks and waits, as a reader of a log does."""
    async with asyncio.timeout(30):
        while len(await look()) < count:
            await watch.wait(LONG_S)
