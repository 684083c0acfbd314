"""One request from the instant it is due to its end.

Latency counts from that instant, not from when the request could be sent: a generator or a server that stalls delays
everything behind it, and all of that must show (no coordinated omission).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx

from loadtest.client.base import BUSY, Dialect, Receipt, Sight, State
from loadtest.mixes import Retries
from loadtest.records import JobRow, Outcome, Planned

PAUSE_S = 1.0  # of a refused caller that was not told how long to wait


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every request of a measurement; instants are those of the event loop's clock."""

    rate_hz: float
    run_seed: int
    began_at: float
    until: float  # nothing is waited for behind it
    retries: Retries
    download: bool


@dataclass(slots=True)
class _Create:
    receipt: Receipt
    accepted_at: float
    refusals: int = 0
    told: bool = True


async def call(request: Planned, server: Dialect, terms: Terms, due_at: float) -> JobRow:
    """Sends a request now; `due_at` is when it should have been sent. Its end, whatever that is."""
    loop = asyncio.get_running_loop()
    sent_at = loop.time()
    create = await _create(request, server, terms)
    sight = Sight()
    nbytes: int | None = None
    job_id = create.receipt.job_id
    if job_id is None:
        outcome = Outcome.REJECTED if create.receipt.status in BUSY else Outcome.FAILED
        sight.error = create.receipt.error
    else:
        outcome = await _follow(job_id, request, server, terms, due_at, sight)
        if outcome is Outcome.COMPLETED and terms.download:
            try:
                nbytes = await server.fetch(job_id, request.tenant, request.results)
                sight.ended_at = loop.time()
            except httpx.HTTPError as error:
                outcome, sight.error = Outcome.FAILED, f"the result cannot be fetched: {error!r}"[:300]

    def since(at: float | None) -> float | None:
        return None if at is None else at - terms.began_at

    return JobRow(
        rate_hz=terms.rate_hz,
        run_seed=terms.run_seed,
        index=request.index,
        tenant=request.tenant,
        slo=request.slo,
        limit_s=request.limit_s,
        model=request.model,
        resolution=request.resolution,
        seconds=request.seconds,
        results=request.results,
        intended_s=due_at - terms.began_at,
        sent_s=sent_at - terms.began_at,
        outcome=outcome,
        accepted_s=since(create.accepted_at) if job_id is not None else None,
        began_s=since(sight.began_at),
        preview_s=since(sight.preview_at),
        ended_s=since(sight.ended_at),
        refusals=create.refusals,
        retry_after=create.told if create.refusals else None,
        status=create.receipt.status,
        job_id=job_id,
        error=sight.error,
        nbytes=nbytes,
        queue_s=sight.queue_s,
        server_s=sight.server_s,
        stage_s=sight.stage_s,
        spans=sight.spans,
    )


async def _create(request: Planned, server: Dialect, terms: Terms) -> _Create:
    """Asks, and again as long as it is refused and told when to come back."""
    loop = asyncio.get_running_loop()
    found = _Create(await server.create(request), loop.time())
    while found.receipt.status in BUSY:
        told_s = found.receipt.retry_after_s
        found.refusals += 1
        found.told = found.told and told_s is not None
        wait_s = PAUSE_S if told_s is None else told_s
        late = loop.time() + wait_s > terms.until or wait_s > terms.retries.longest_s
        if found.refusals > terms.retries.most or late:
            break
        await asyncio.sleep(wait_s)
        found.receipt, found.accepted_at = await server.create(request), loop.time()
    return found


async def _follow(job_id: str, request: Planned, server: Dialect, terms: Terms, due_at: float, sight: Sight) -> Outcome:
    """To the job's end, its caller's change of mind, or the measurement's."""
    planned_at = None if request.cancel_after_s is None else due_at + request.cancel_after_s
    until = terms.until if planned_at is None else min(planned_at, terms.until)
    try:
        async with asyncio.timeout_at(until):
            await server.follow(job_id, request.tenant, sight)
    except TimeoutError:
        try:
            await server.cancel(job_id, request.tenant)
        except httpx.HTTPError as error:
            sight.error = f"the cancel was not answered: {error!r}"[:300]
        return Outcome.CANCELLED if until == planned_at else Outcome.UNFINISHED
    return Outcome.COMPLETED if sight.state is State.COMPLETED else Outcome.FAILED
