"""The contract suite: transactions are whole or not there, whatever dies."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, insert, select

from cluster.store.base import JobStore
from cluster.store.database import Database
from cluster.store.schema import jobs, tenants
from tests.unit.cluster.makers import REQUEST
from tests.unit.cluster.store.play import R2V, TENANT, Play, python

KILLED = """
import asyncio, sys
from sqlalchemy import insert, update
from cluster.store.schema import jobs, stages, tenants
from cluster.store.sql import database_at

async def main():
    database = database_at(sys.argv[1])
    await database.open()
    async with database.write() as tx:
        await tx.conn.execute(insert(tenants).values(id="ghost", created_at=tx.now))
        await tx.conn.execute(update(jobs).values(state="failed", last_seq=99))
        await tx.conn.execute(update(stages).values(state="done"))
        print("inside", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

CREATES = """
import asyncio, itertools, sys
from cluster.store import open_store
from tests.unit.cluster.makers import REQUEST
from tests.unit.cluster.store.play import R2V, TENANT

async def main():
    store = open_store(sys.argv[1])
    await store.open()
    for index in itertools.count():
        await store.create_job(f"k{index}", TENANT, REQUEST, R2V)
        print(index, flush=True)

asyncio.run(main())
"""


class TransactionContract:
    """What a transaction promises."""

    async def test_a_reading_is_one_snapshot(self, database: Database, store: JobStore) -> None:
        async with database.read() as tx:
            count = select(func.count()).select_from(jobs)
            assert (await tx.conn.execute(count)).scalar_one() == 0
            await store.create_job("j1", TENANT, REQUEST, R2V)
            assert (await tx.conn.execute(count)).scalar_one() == 0

    async def test_a_failed_transaction_leaves_nothing(self, database: Database, store: JobStore) -> None:
        with pytest.raises(KeyError):
            async with database.write() as tx:
                await tx.conn.execute(insert(tenants).values(id="ghost", created_at=tx.now))
                raise KeyError
        async with database.read() as tx:
            assert not (await tx.conn.execute(select(tenants.c.id))).all()

    async def test_a_cancelled_write_frees_the_store(self, database: Database) -> None:
        inside = asyncio.Event()

        async def hang() -> None:
            async with database.write():
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with database.write() as tx:
            assert tx.now is not None

    async def test_a_process_killed_inside_a_transaction_leaves_no_trace(
        self, play: Play, store_url: str, database: Database
    ) -> None:
        await play.create()
        before = await play.everything()
        victim = await python("-c", KILLED, store_url, stdout=asyncio.subprocess.PIPE)
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"inside\n"
        victim.kill()
        await victim.wait()
        assert await play.everything() == before
        await play.finish("text")
        async with database.read() as tx:
            assert (await tx.conn.execute(select(tenants.c.id))).scalars().all() == [TENANT]

    async def test_what_was_acknowledged_survives_a_kill(self, play: Play, store_url: str) -> None:
        victim = await python("-c", CREATES, store_url, stdout=asyncio.subprocess.PIPE)
        assert victim.stdout is not None
        for _ in range(10):
            await victim.stdout.readline()
        victim.kill()
        acknowledged = 10 + (await victim.stdout.read()).count(b"\n")
        await victim.wait()
        kept = (await play.store.list_jobs(TENANT, limit=1000)).jobs
        assert len(kept) in {acknowledged, acknowledged + 1}  # the last commit may not have been printed
        for job in kept:
            assert len(job.stages) == len(R2V.nodes)
            assert await play.log(job.id)
