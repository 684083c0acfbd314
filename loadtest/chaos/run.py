"""A whole run: jobs and hurts side by side, then a last look at everything, then the verdict."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from itertools import takewhile
from threading import Event
from typing import Any

import httpx

from loadtest.chaos import report, scenario, webhooks
from loadtest.chaos.client import Client, GaveUp, Offer
from loadtest.chaos.drive import Driver
from loadtest.chaos.evidence import ENDED, Evidence, JobRecord
from loadtest.chaos.hurt import Hurter
from loadtest.chaos.means import Means
from loadtest.chaos.receiver import Receiver
from loadtest.chaos.report import Report
from loadtest.chaos.scenario import JobPlan
from loadtest.chaos.usage import counted, price
from loadtest.chaos.verdict import judge
from loadtest.manifest import manifest
from loadtest.processes import Processes

PAGE = 100
SETTLE_S = 60.0
DELIVERY_S = 300.0
POLL_S = 0.5
KILL_EVERY_S = 12.0
OPEN_JOBS = 24
UNREADABLE = (GaveUp, httpx.HTTPError, ValueError, LookupError)  # of no answer, and of one that cannot be understood


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a run. `keys` are API keys, one per tenant, the first an admin's; none = the server knows one
    tenant only. The server must allow the receiver's host. Once `enough` is set nothing more is begun or hurt; what is
    open is followed to its end, so that the report of a shortened run is whole.
    """

    url: str
    jobs: int = 1000
    seed: int = 1
    kill_every_s: float = KILL_EVERY_S
    open_jobs: int = OPEN_JOBS
    keys: tuple[str, ...] = ()
    receiver: Receiver | None = None
    kind: str = "mixed"
    means: Means | None = None  # what kinds that need more than signals are done with
    enough: Event = field(default_factory=Event)

    def wanted(self, _plan: object) -> bool:
        """Whether anything more is to be done."""
        return not self.enough.is_set()


def run(options: Options, progress: Callable[[int, int], None] = lambda _done, _hurt: None) -> Report:
    """Runs it; `progress` hears how many jobs have ended and how many processes were hurt.

    Raises:
        NotHere: the system's processes are not on this machine.
    """
    return asyncio.run(_run(options, progress))


async def _run(options: Options, progress: Callable[[int, int], None]) -> Report:
    began = time.monotonic()
    keys: Sequence[str | None] = options.keys or (None,)
    client = Client(options.url, keys)
    try:
        offer = Offer.read(await client.json("/openapi.json"))
        status = await client.json("/v1/status")
        pools = tuple(sorted({worker["pool"] for worker in status["workers"]}))
        hurter = Hurter(client, Processes(options.url), frozenset(status["slots"]), pools, options.means)
        receiver = options.receiver if offer.webhooks else None
        driver = Driver(client, offer, receiver)
        evidence = Evidence(jobs=[], hurts=hurter.hurts, unchecked=list(_unchecked(offer, len(keys), receiver)))
        if receiver is not None:
            evidence.receipts = receiver.receipts
            for tenant in range(len(keys)):
                receiver.secrets[tenant] = (await client.json("/v1/webhooks/secret", tenant))["secret"]
        since = f"{datetime.now(UTC):%Y-%m-%dT%H:00:00Z}"
        before = await _used(client, offer, len(keys), since)
        if offer.usage:
            evidence.per_second_usd = price(await client.json("/v1/models"))
        plans = takewhile(options.wanted, scenario.jobs(options.seed, options.jobs, tenants=len(keys)))
        faults = scenario.KINDS[options.kind].faults
        hurts = takewhile(options.wanted, scenario.hurts(options.seed, every_s=options.kill_every_s, faults=faults))
        chaos = asyncio.create_task(hurter.run(hurts))
        try:
            await _drive(driver, plans, options.open_jobs, evidence, lambda done: progress(done, len(hurter.hurts)))
        finally:
            chaos.cancel()
            (fault,) = await asyncio.gather(chaos, return_exceptions=True)
        if isinstance(fault, Exception):
            evidence.gave_up.append(f"The run hurt nobody any more: {fault!r}")
        try:
            await _look_again(client, driver, evidence, len(keys))
            await _webhooks(evidence)
            after = await _used(client, offer, len(keys), since)
            if offer.usage:
                evidence.used = {tenant: after[tenant] - before[tenant] for tenant in after}
        except UNREADABLE as error:
            evidence.gave_up.append(f"The last look at everything ended early: {error!r}")
    finally:
        await client.close()
    if len(evidence.jobs) < options.jobs:
        evidence.unchecked.append(f"{options.jobs - len(evidence.jobs)} jobs: the run was interrupted before them")
    hidden = {"keys", "receiver", "means", "enough"}
    shown = {item.name: getattr(options, item.name) for item in fields(options) if item.name not in hidden}
    return Report(
        manifest=manifest(**shown, tenants=len(keys), kinds=" ".join(hurter.kinds), profile=status["profile"]),
        counts=report.counts(evidence),
        answers=dict(client.answers),
        hurts=evidence.hurts,
        violations=judge(evidence),
        unchecked=evidence.unchecked,
        seconds=time.monotonic() - began,
        jobs=evidence.jobs,
        job_seconds=[record.ended_after_s for record in evidence.jobs if record.ended_after_s is not None],
    )


async def _drive(
    driver: Driver, plans: Iterator[JobPlan], open_jobs: int, evidence: Evidence, progress: Callable[[int], None]
) -> None:
    """Keeps `open_jobs` jobs open until the plans are used up."""
    ended = 0

    async def caller() -> None:
        nonlocal ended
        for plan in plans:  # shared: each plan goes to one caller
            record = JobRecord(plan, plan.tenant)
            evidence.jobs.append(record)
            try:
                await driver.run(plan, record)
            except UNREADABLE as error:
                evidence.gave_up.append(f"job {plan.index}: {error!r}")
            ended += 1
            progress(ended)

    async with asyncio.TaskGroup() as callers:
        for _ in range(open_jobs):
            callers.create_task(caller())
    evidence.lost_answers = driver.lost_answers


async def _look_again(client: Client, driver: Driver, evidence: Evidence, tenants: int) -> None:
    """Follows jobs whose create was not answered to their ends, then lists everything and waits for quiet."""
    known = {record.id for record in evidence.jobs}
    adopted = [
        JobRecord(None, tenant, video["id"], last=video)
        for tenant in range(tenants)
        for video in await _listing(client, tenant)
        if video["id"] not in known
    ]
    for record in adopted:
        if record.status in ENDED:
            record.last = {}  # its results are still to be fetched
        await driver.follow(record, 0.0)
    evidence.jobs += adopted
    for tenant in range(tenants):
        evidence.listed += [(tenant, video) for video in await _listing(client, tenant)]
    evidence.busy_after = await _busy(client)


async def _listing(client: Client, tenant: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more = True
    while more:
        after = {"after": found[-1]["id"]} if found else {}
        page = await client.json("/v1/videos", tenant, limit=PAGE, order="asc", **after)
        found += page["data"]
        more = page["has_more"]
    return found


async def _busy(client: Client) -> dict[str, int]:
    """Stages that wait or run although nothing should; freed workers get a moment to notice."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        status = await client.json("/v1/status")
        busy = {stage: status["busy"].get(stage, 0) + status["ready"].get(stage, 0) for stage in status["slots"]}
        if not any(busy.values()) or time.monotonic() > deadline:
            return busy
        await asyncio.sleep(POLL_S)


async def _used(client: Client, offer: Offer, tenants: int, since: str) -> dict[int, Counter[str]]:
    """What each tenant's ledger holds since an hour."""
    if not offer.usage:
        return {}
    return {tenant: counted(await client.json("/v1/usage", tenant, since=since)) for tenant in range(tenants)}


async def _webhooks(evidence: Evidence) -> None:
    """Waits for what is still on its way."""
    deadline = time.monotonic() + DELIVERY_S
    while evidence.receipts is not None and webhooks.missing(evidence.jobs, evidence.receipts):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(POLL_S)


def _unchecked(offer: Offer, tenants: int, receiver: Receiver | None) -> Iterator[str]:
    if receiver is None:
        yield f"webhooks: {'no receiver was given' if offer.webhooks else 'the server does not send any'}"
    if not offer.usage:
        yield "usage and charges: the server does not tell them"
    if not offer.events:
        yield "event logs: the server does not offer them"
    if not offer.once:
        yield "repeated creates: the server takes no Idempotency-Key; answers that were lost are only counted"
    if tenants == 1:
        yield "tenants: no API keys were given"
