"""What a server that stops, freezes or keeps its rows locked does to the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import make_url

from cluster.errors import Unavailable
from cluster.store.base import JobStore
from cluster.store.database import Database
from cluster.store.news import Topic
from cluster.store.postgres import Postgres
from cluster.store.sql import SqlJobStore
from tests.postgres import Databases, Server
from tests.unit.cluster.makers import REQUEST
from tests.unit.cluster.store.contract_news import LONG_S, quiet, told
from tests.unit.cluster.store.play import R2V, TENANT, Play

HASTE_S = 2.0
SOON_S = 100.0  # a bound on what must not hang


@pytest.fixture
def server(postgres: Databases) -> Server:
    if not isinstance(postgres, Server):
        pytest.skip("the server of --postgres-url is not ours to stop")
    return postgres


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[JobStore]:
    """A store that gives up early."""
    store = SqlJobStore(Database(Postgres(make_url(store_url), timeout_s=HASTE_S)))
    await store.open()
    yield store
    await store.close()


async def test_a_stopped_server_is_unavailable_and_passes_without_a_failed_call(server: Server, play: Play) -> None:
    await play.create()
    call = (await play.take("text")).call
    before = await play.everything()
    await asyncio.to_thread(server.stop)
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await play.store.create_job("j2", TENANT, REQUEST, R2V)
        assert caught.value.retry_after_s > 0
        with pytest.raises(Unavailable):
            await play.job()
    await asyncio.to_thread(server.start)
    assert await play.everything() == before
    await play.store.release(call)


async def test_connections_of_an_earlier_life_are_replaced_before_they_are_used(server: Server, play: Play) -> None:
    await asyncio.gather(*(play.store.now() for _ in range(8)))
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await play.create()
    await asyncio.gather(*(play.job() for _ in range(8)))


async def test_a_frozen_server_is_unavailable_and_passes(server: Server, play: Play) -> None:
    await play.create()
    async with asyncio.timeout(SOON_S):
        with server.frozen():
            answers = await asyncio.gather(
                play.job(), play.create("j2"), play.store.now(), play.dispatch("text"), return_exceptions=True
            )
        assert [type(answer) for answer in answers] == [Unavailable] * 4
        await play.job()
        await play.finish("text")


async def test_a_lock_that_nobody_gives_back_is_unavailable_and_leaves_others_alone(play: Play, store_url: str) -> None:
    await play.create("stuck")
    await play.create("free")
    holder = await _holds(store_url, "stuck")
    async with asyncio.timeout(SOON_S):
        with pytest.raises(Unavailable):
            await play.store.cancel_job("stuck", TENANT)
        await play.store.cancel_job("free", TENANT)
        await holder.close()
        await play.store.cancel_job("stuck", TENANT)


async def test_a_writer_that_stands_still_loses_its_locks(play: Play, store: JobStore, store_url: str) -> None:
    """The server ends it: a frozen process cannot hold up the others."""
    await play.create()
    engine = Postgres(make_url(store_url), timeout_s=HASTE_S).engine()

    async def stand_still() -> None:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("SELECT * FROM jobs FOR UPDATE")
            inside.set()
            await asyncio.Event().wait()

    inside = asyncio.Event()
    task = asyncio.create_task(stand_still())
    await inside.wait()
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                await store.cancel_job("j1", TENANT)
                break
            except Unavailable:
                continue
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await engine.dispose()


async def test_housekeeping_passes_by_a_busy_job(play: Play, store_url: str) -> None:
    for job_id in ("busy", "idle"):
        await play.create(job_id)
        await play.take("text", job_id, lease_s=0)
    holder = await _holds(store_url, "busy")
    touched = await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=9)
    assert [ref.job_id for ref in touched] == ["idle"]
    await holder.close()
    touched = await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=9)
    assert [ref.job_id for ref in touched] == ["busy"]


async def test_news_are_heard_again_after_an_outage(server: Server, play: Play, store_url: str) -> None:
    other = SqlJobStore(Database(Postgres(make_url(store_url))))
    await other.open()
    watch = await quiet(other.watch(Topic.EVENTS, poll_s=LONG_S))
    await play.create("j1")
    async with asyncio.timeout(SOON_S):
        assert await watch.wait(LONG_S)
        await asyncio.to_thread(server.stop)
        assert await watch.wait(LONG_S)  # look now, and poll from here on
        await asyncio.to_thread(server.start)
        assert await watch.wait(LONG_S)  # look: something may have been missed
        await quiet(watch)
        await play.create("j2")
        assert await watch.wait(LONG_S)
    await other.close()


async def test_news_too_long_for_a_message_concern_everybody(play: Play, store_url: str) -> None:
    other = SqlJobStore(Database(Postgres(make_url(store_url))))
    await other.open()
    watch = await quiet(other.watch(Topic.EVENTS, key="nobody", poll_s=LONG_S))
    await play.create("j1")
    assert not await watch.wait(0.5)
    ids = [f"{'long' * 50}{index}" for index in range(50)]
    for job_id in ids:
        await play.create(job_id)
        await play.dispatch("text", job_id)
    assert not await told(watch)
    await play.store.reap(play.leadership, dispatch_ttl_s=0, max_losses=9)
    assert await watch.wait(SOON_S)
    await other.close()


async def _holds(store_url: str, job_id: str) -> asyncpg.Connection:
    """Somebody else's transaction with the job's row locked, until its connection is closed."""
    url = make_url(store_url)
    connection = await asyncpg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, database=url.database
    )
    await connection.execute("BEGIN")
    await connection.execute("SELECT * FROM jobs WHERE id = $1 FOR UPDATE", job_id)
    return connection
