"""One request on a virtual clock: latencies from the intended instant, cancels, retries, time that runs out."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from loadtest.client.call import Terms, call
from loadtest.client.openai import OpenAi, OpenAiEvents
from loadtest.client.scrape import Scraper, read
from loadtest.mixes import Retries
from loadtest.records import JobRow, Outcome, Span
from tests.unit.loadtest import virtual
from tests.unit.loadtest.client.test_peers import request
from tests.unit.loadtest.synthetic import Synthetic, constant

DUE_AT = 1.0


def called(
    synthetic: Synthetic,
    *,
    sent_at: float = DUE_AT,
    until: float = 100.0,
    retries: Retries | None = None,
    kind: type[OpenAi] = OpenAiEvents,
    before: int = 0,
    download: bool = False,
    **changes: Any,
) -> JobRow:
    async def program() -> JobRow:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(synthetic.app), base_url="http://known") as http:
            server = kind(http)
            for _ in range(before):
                await server.create(request())
            await asyncio.sleep(sent_at)
            terms = Terms(1.0, 1, 0.0, until, retries or Retries(), download)
            return await call(request(**changes), server, terms, DUE_AT)

    return virtual.run(program())


def near(found: float | None, expected: float) -> bool:
    return found is not None and abs(found - expected) < 1e-5


def test_latency_counts_from_the_intended_instant() -> None:
    row = called(Synthetic(1, constant(2.0)), sent_at=4.0)
    assert row.outcome is Outcome.COMPLETED
    assert (row.intended_s, row.sent_s, row.ended_s, row.latency_s) == (1.0, 4.0, 6.0, 5.0)
    assert near(row.server_s, 2.0)
    assert near(row.stage_s["make"], 2.0)
    assert row.spans == (Span("make", 0, 0, 1, 0.0, 0.0, 2.0, True),)
    assert row.preview_s == 6.0


def test_a_polling_client_sees_the_end_at_its_next_look_and_reads_server_timing() -> None:
    row = called(Synthetic(1, constant(2.1)), kind=OpenAi)
    assert (row.ended_s, row.began_s) == (3.25, 1.25)
    assert near(row.queue_s, 0.0)
    assert near(row.stage_s["make"], 2.1)


def test_a_caller_changes_its_mind() -> None:
    synthetic = Synthetic(1, constant(5.0))
    row = called(synthetic, cancel_after_s=2.0)
    assert (row.outcome, row.ended_s) == (Outcome.CANCELLED, None)
    assert [job.cancelled for job in synthetic.jobs.values()] == [True]
    assert called(Synthetic(1, constant(1.0)), cancel_after_s=2.0).outcome is Outcome.COMPLETED


def test_what_has_not_ended_in_time_is_stopped_and_unfinished() -> None:
    synthetic = Synthetic(1, constant(50.0))
    assert called(synthetic, until=10.0).outcome is Outcome.UNFINISHED
    assert [job.cancelled for job in synthetic.jobs.values()] == [True]


def test_a_refused_caller_comes_back_when_it_was_told_to() -> None:
    row = called(Synthetic(1, constant(4.5), most=1), before=1, retries=Retries(most=3))
    assert (row.outcome, row.refusals, row.retry_after) == (Outcome.COMPLETED, 2, True)
    assert (row.accepted_s, row.ended_s) == (5.0, 9.5)
    assert row.latency_s == 8.5


def test_a_refusal_is_the_answer_where_nobody_tries_again() -> None:
    row = called(Synthetic(1, constant(4.5), most=0))
    assert (row.outcome, row.refusals, row.status, row.job_id) == (Outcome.REJECTED, 1, 429, None)
    impatient = called(Synthetic(1, constant(4.5), most=0), retries=Retries(most=9, longest_s=1.0))
    assert impatient.refusals == 1


def test_the_result_can_be_fetched_within_the_time_that_counts() -> None:
    assert called(Synthetic(1, constant(1.0)), download=True, results=2).nbytes == 2000


def test_a_server_that_is_not_there_fails_the_request() -> None:
    async def program() -> JobRow:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:1", trust_env=False) as http:
            now = asyncio.get_running_loop().time()
            return await call(request(), OpenAi(http), Terms(1.0, 1, now, now + 5, Retries(), False), now)

    row = asyncio.run(program())
    assert (row.outcome, row.status, row.job_id) == (Outcome.FAILED, None, None)
    assert row.error is not None


def test_pages_of_metrics_are_read_without_buckets_and_without_what_is_not_ours() -> None:
    synthetic = Synthetic(3, constant(1.0))

    async def program() -> Scraper:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(synthetic.app)) as http:
            scraper = Scraper(http, {"api": "http://known/metrics", "gone": "http://known/none"}, {})
            await scraper.all(1.5)
            return scraper

    scraper = virtual.run(program())
    assert {(s.at_s, s.source, s.name, s.labels["stage"], s.value) for s in scraper.samples} == {
        (1.5, "api", "skyreels_stage_ready", "make", 0.0),
        (1.5, "api", "skyreels_stage_slots", "make", 3.0),
    }
    assert scraper.failures == 1
    text = "# TYPE skyreels_x histogram\n" + 'skyreels_x_bucket{le="+Inf"} 2\nskyreels_x_sum 3\nskyreels_x_count 2\n'
    assert [sample.name for sample in read(text, "api", 0.0)] == ["skyreels_x_sum", "skyreels_x_count"]
