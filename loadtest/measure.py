"""One measurement: a scenario at one rate with one seed against one server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from loadtest.client.base import Device, Dialect
from loadtest.client.call import Terms, call
from loadtest.client.scrape import Scraper
from loadtest.mixes import Scenario
from loadtest.records import JobRow, Mark, Planned, Sample

Hurting = Callable[[float, list[Mark]], Coroutine[None, None, None]]  # given the start's instant and where marks go


@dataclass(slots=True)
class Measured:
    """What a measurement gave. `device` is what the server says it spent in it."""

    rate_hz: float
    seed: int
    seconds: float = 0.0
    began: str = ""
    rows: list[JobRow] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    device: Device | None = None
    scrape_failures: int = 0


async def measure(
    scenario: Scenario,
    requests: Sequence[Planned],
    server: Dialect,
    rate_hz: float,
    seed: int,
    *,
    scraper: Scraper,
    heard: Callable[[JobRow], None] = lambda _row: None,
    hurting: Hurting | None = None,
) -> Measured:
    """Sends the requests when they are due and follows each to its end, or the measurement's. `heard` gets every row as
    soon as it is known, in the order of the ends.
    """
    loop = asyncio.get_running_loop()
    measured = Measured(rate_hz, seed, began=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    hour = f"{datetime.now(UTC):%Y-%m-%dT%H:00:00Z}"
    before = await _device(server, scenario, hour)
    await scraper.all(0.0)
    began_at = loop.time()
    until = began_at + scenario.seconds + scenario.drain_s
    terms = Terms(rate_hz, seed, began_at, until, scenario.retries, scenario.download)

    async def one(request: Planned, due_at: float) -> None:
        row = await call(request, server, terms, due_at)
        measured.rows.append(row)
        heard(row)

    async with _beside(scraper.run(began_at)), asyncio.TaskGroup() as tasks:
        if hurting is not None:
            tasks.create_task(hurting(began_at, measured.marks))
        if scenario.closed is None:
            for request in requests:
                due_at = began_at + request.at_s
                await asyncio.sleep(max(0.0, due_at - loop.time()))
                tasks.create_task(one(request, due_at))
        else:
            shared = iter(requests)
            for _ in range(scenario.closed.users):
                tasks.create_task(_user(shared, one, began_at + scenario.seconds))
    await asyncio.sleep(scenario.settle_s)
    await scraper.all(loop.time() - began_at)
    measured.seconds = loop.time() - began_at
    after = await _device(server, scenario, hour)
    if before is not None and after is not None:
        measured.device = Device(after.useful_s - before.useful_s, after.wasted_s - before.wasted_s)
    measured.samples, measured.scrape_failures = scraper.samples, scraper.failures
    return measured


async def _user(requests: Iterator[Planned], one: Callable[[Planned, float], Awaitable[None]], until: float) -> None:
    """A caller of a closed loop, sharing the requests with the others."""
    loop = asyncio.get_running_loop()
    for request in requests:
        due_at = loop.time() + request.at_s
        if due_at >= until:
            return
        await asyncio.sleep(request.at_s)
        await one(request, due_at)


async def _device(server: Dialect, scenario: Scenario, since: str) -> Device | None:
    try:
        return await server.device(tuple(scenario.tenants), since)
    except httpx.HTTPError:
        return None


@asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Does something all the while."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
