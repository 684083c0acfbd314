"""Many processes' connections at the same rows of one server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import select, update

from cluster.errors import StaleEpoch
from cluster.records import Beat, JobState, StageRef
from cluster.store import open_store
from cluster.store.base import JobStore
from cluster.store.competing import unclaimed
from cluster.store.database import Database
from cluster.store.schema import workers
from tests.unit.cluster.makers import handle, worker
from tests.unit.cluster.store.play import LEASE_S, TENANT, Play, outputs

JOBS = [f"j{index}" for index in range(6)]


@pytest.fixture
async def stores(store_url: str) -> AsyncIterator[list[JobStore]]:
    """As many as processes would have."""
    async with AsyncExitStack() as stack:
        stores = [open_store(store_url) for _ in range(4)]
        for store in stores:
            await store.open()
            stack.push_async_callback(store.close)
        yield stores


async def test_one_of_many_connections_claims_a_call(play: Play, stores: list[JobStore]) -> None:
    await play.create()
    call = await play.dispatch("text")
    results = await asyncio.gather(*(stores[n % 4].claim(call, f"w{n}", LEASE_S) for n in range(24)))
    assert sum(work is not None for work in results) == 1
    claims = [event for event in await play.log() if event.data.get("state") == "claimed"]
    assert len(claims) == 1


async def test_one_of_many_schedulers_leads_and_the_old_one_is_fenced(stores: list[JobStore], play: Play) -> None:
    await play.create()
    await play.store.resign(play.leadership)
    terms = await asyncio.gather(*(stores[n % 4].lead(f"scheduler{n}", LEASE_S) for n in range(12)))
    leaders = [leadership for leadership in terms if leadership is not None]
    assert len(leaders) == 1
    assert leaders[0].term == play.leadership.term + 1
    with pytest.raises(StaleEpoch):
        await play.dispatch("text")
    assert await stores[0].dispatch(leaders[0], [StageRef("j1", "text")])


async def test_a_leader_that_is_replaced_in_mid_write_has_written_before(
    database: Database, stores: list[JobStore], play: Play
) -> None:
    """A fenced write and a change of leader never overlap."""
    await play.create("j1")
    old = await stores[0].lead("s1", 0.0)
    assert old is not None
    dispatched, new = await asyncio.gather(
        stores[0].dispatch(old, [StageRef("j1", "text")]), stores[1].lead("s2", LEASE_S), return_exceptions=True
    )
    assert not isinstance(new, BaseException)
    assert new is not None
    wrote = not isinstance(dispatched, StaleEpoch)
    assert ("dispatched" in [event.data.get("state") for event in await play.log()]) == wrote


async def test_nothing_that_happens_to_the_same_jobs_at_once_deadlocks(play: Play, stores: list[JobStore]) -> None:
    calls = []
    for job_id in JOBS:
        await play.create(job_id)
        calls.append((await play.take("text", job_id, worker="w1")).call)
    beats = [Beat(call, 1, 2) for call in calls]

    async def beat(store: JobStore, order: int) -> None:
        for _ in range(10):
            await store.heartbeat("w1", beats[::order], LEASE_S)

    async def advance(store: JobStore) -> None:
        for call in reversed(calls):
            await store.save_snapshot(call, handle("s"), 1)
            await store.complete(call, outputs("text"))

    async def stop(store: JobStore) -> None:
        for job_id in JOBS[::2]:
            await store.cancel_job(job_id, TENANT)

    async def keep(store: JobStore, order: int) -> None:
        for _ in range(10):
            refs = [StageRef(job_id, "condition") for job_id in JOBS]
            await store.dispatch(play.leadership, refs[::order])
            await store.reap(play.leadership, dispatch_ttl_s=0, max_losses=99)
            await store.register(worker("w1"))

    first, second, third, fourth = stores
    results = await asyncio.gather(
        beat(first, 1), beat(second, -1), advance(third), stop(fourth), keep(first, 1), keep(fourth, -1),
        return_exceptions=True,
    )  # fmt: skip
    assert {type(error) for error in results if error is not None} <= {StaleEpoch}  # of the cancelled jobs
    for job_id in JOBS:
        log = await play.log(job_id)
        assert [event.at for event in log] == sorted(event.at for event in log)
    assert {(await play.job(job_id)).state for job_id in JOBS[::2]} == {JobState.CANCELLED}


async def test_workers_share_a_table_without_waiting(database: Database, store: JobStore) -> None:
    for index in range(6):
        await store.register(worker(f"w{index}"))
    mine = select(workers.c.id).where(workers.c.pool == "Model").order_by(workers.c.id)
    async with database.write() as one, database.write() as other:
        first = (await one.conn.execute(unclaimed(mine, 2, of=workers))).scalars().all()
        second = (await other.conn.execute(unclaimed(mine, 9, of=workers))).scalars().all()
        assert (first, second) == (["w0", "w1"], ["w2", "w3", "w4", "w5"])
        await one.conn.execute(update(workers).where(workers.c.id.in_(first)).values(pool="taken"))
    async with database.write() as later:
        assert (await later.conn.execute(unclaimed(mine, 9, of=workers))).scalars().all() == second
