"""The contract suite: what every job store does. A backend's test file subclasses `Contract` and gives `store_url`.

Time is never waited for: a lease, term or deadline of zero seconds is over as soon as it is written.
"""

from __future__ import annotations

import asyncio

from cluster.records import Failure
from cluster.store import open_store
from tests.unit.cluster.makers import request
from tests.unit.cluster.store.contract_clients import ClientContract
from tests.unit.cluster.store.contract_files import FileContract
from tests.unit.cluster.store.contract_leases import FailureContract, LeaseContract
from tests.unit.cluster.store.contract_news import NewsContract
from tests.unit.cluster.store.contract_outbox import OutboxContract
from tests.unit.cluster.store.contract_results import ResultContract
from tests.unit.cluster.store.contract_scheduler import SchedulerContract
from tests.unit.cluster.store.contract_segments import SegmentContract
from tests.unit.cluster.store.contract_tenancy import TenancyContract
from tests.unit.cluster.store.contract_transactions import TransactionContract
from tests.unit.cluster.store.play import R2V, TENANT, Play, python

LOST = Failure("worker_lost", "The worker of this stage died.")
BROKEN = Failure("non_finite", "The latents became NaN.")


class ProcessContract:
    """Several processes on one store."""

    async def test_concurrent_writers_lose_nothing_and_number_without_gaps(self, play: Play, store_url: str) -> None:
        processes, rounds = 4, 10
        await play.create("shared")
        call = (await play.take("text", "shared")).call
        before = len(await play.log("shared"))
        command = ("-m", "tests.unit.cluster.store.writer", store_url)
        writers = [await python(*command, f"p{index}", str(rounds), str(call.epoch)) for index in range(processes)]
        assert await asyncio.gather(*(writer.wait() for writer in writers)) == [0] * processes
        log = await play.log("shared")
        assert len(log) == before + processes * rounds
        assert all(event.type == "snapshot" for event in log[before:])
        page = await play.store.list_jobs(TENANT, limit=100)
        assert {job.id for job in page.jobs} == {"shared"} | {
            f"p{p}-{r}" for p in range(processes) for r in range(rounds)
        }

    async def test_all_may_open_a_new_store_at_once(self, store_url: str) -> None:
        stores = [open_store(store_url) for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        await stores[0].create_job("j1", TENANT, request(), R2V)
        assert [(await store.get_job("j1", TENANT)).id for store in stores] == ["j1"] * 4
        await asyncio.gather(*(store.close() for store in stores))

    async def test_processes_may_open_a_new_store_at_once(self, store_url: str) -> None:
        code = f"import asyncio; from cluster.store import open_store; asyncio.run(open_store({store_url!r}).open())"
        openers = [await python("-c", code) for _ in range(4)]
        assert await asyncio.gather(*(opener.wait() for opener in openers)) == [0] * 4


class RecordContract(
    ClientContract,
    FileContract,
    LeaseContract,
    FailureContract,
    SchedulerContract,
    SegmentContract,
    TransactionContract,
    NewsContract,
    ResultContract,
    OutboxContract,
    TenancyContract,
):
    """What holds on a store that is open."""


class Contract(RecordContract, ProcessContract):
    """Everything."""
