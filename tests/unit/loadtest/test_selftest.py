"""The kit measures a server of known law: what it says must be what the theory says, on a virtual clock."""

from __future__ import annotations

import random
import statistics as plain
from collections.abc import Sequence

import httpx
import pytest

from loadtest.arrivals import Arrivals, Gamma, Poisson
from loadtest.client.openai import OpenAiEvents
from loadtest.client.scrape import Scraper
from loadtest.measure import Measured, measure
from loadtest.mixes import Scenario, parse
from loadtest.records import JobRow, Outcome
from loadtest.slo import counted, queue_wait_s, summarise
from loadtest.theory import allen_cunneen_wait_s, md1_wait_within, mdc_wait_s, mmc_within, quantile
from loadtest.traces import plan
from tests.unit.loadtest import virtual
from tests.unit.loadtest.synthetic import Law, Synthetic, constant, exponential

SEEDS = (1, 2, 3, 4, 5, 6)


def scenario(seconds: float, arrivals: Arrivals | None = None, **changes: object) -> Scenario:
    told = parse(
        """
        name: known
        about: a server of known law
        mix: [{model: skyreels-v3-r2v, resolutions: {64P: 1}, seconds: {1: 1}}]
        slo: {only: {latency_s: 10}}
        warmup_s: 20
        drain_s: 300
        """,
        "known",
    )
    return told.model_copy(update={"seconds": seconds, "arrivals": arrivals or Poisson(), **changes})


def measured(asked: Scenario, rate_hz: float, seed: int, synthetic: Synthetic) -> Measured:
    async def program() -> Measured:
        transport = httpx.ASGITransport(synthetic.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://known") as http:
            server = OpenAiEvents(http)
            requests = plan(asked, rate_hz, seed)
            return await measure(asked, requests, server, rate_hz, seed, scraper=Scraper(http, {}, {}))

    return virtual.run(program())


def waits(points: Sequence[Measured], asked: Scenario) -> list[list[float]]:
    return [[queue_wait_s(row) or 0.0 for row in counted(point, asked)] for point in points]


def interval(by_seed: Sequence[Sequence[float]], width: float = 4.8) -> tuple[float, float]:
    """Of the mean, from the spread between independent seeds: 99.5 % of Student's t with five degrees of freedom."""
    means = [plain.mean(seed) for seed in by_seed]
    half = width * plain.stdev(means) / len(means) ** 0.5
    return plain.mean(means) - half, plain.mean(means) + half


def shifted(law: Law, seed: int) -> Law:
    """The same law with other draws, so that seeds are independent of each other."""

    own = random.Random(1000 + seed)
    return lambda _draw: law(own)


def test_exponential_services_of_two_workers() -> None:
    """M/M/2 at a load of 0.7: p50, p95 and p99 of the theory lie within the intervals that are told."""
    asked = scenario(400)
    points = [measured(asked, 1.4, seed, Synthetic(2, shifted(exponential(1.0), seed))) for seed in SEEDS]
    told = summarise(points, asked).part("end to end")
    assert told is not None
    assert told.samples > 1000
    for probability in (0.5, 0.95, 0.99):
        estimate = told.quantiles[probability]
        expected = quantile(lambda s: mmc_within(s, 0.7, 2, 1.0), probability)
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= expected <= estimate.high, (probability, estimate, expected)


def test_constant_services_of_one_worker() -> None:
    """M/D/1 at a load of 0.7: the share of waits within a time, and their mean."""
    asked = scenario(500)
    points = [measured(asked, 0.7, seed, Synthetic(1, constant(1.0))) for seed in SEEDS]
    found = waits(points, asked)
    for seconds in (0.001, 1.0, 3.0):
        low, high = interval([[float(wait <= seconds) for wait in seed] for seed in found])
        assert low <= md1_wait_within(seconds, 0.7, 1.0) <= high, seconds
    low, high = interval(found)
    assert low <= mdc_wait_s(0.7, 1, 1.0) <= high


@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_other_arrivals_wait_about_as_allen_and_cunneen_say(cv: float) -> None:
    """G/M/2: an approximation, so to within a third; between the two CVs lies a factor of more than two."""
    asked = scenario(600, Gamma(kind="gamma", cv=cv))
    points = [measured(asked, 1.2, seed, Synthetic(2, shifted(exponential(1.0), seed))) for seed in SEEDS[:3]]
    found = plain.mean(plain.mean(seed) for seed in waits(points, asked))
    assert found == pytest.approx(allen_cunneen_wait_s(0.6, 2, 1.0, cv, 1.0), rel=0.34)


def test_a_stall_shows_in_the_tail_although_nothing_is_asked_meanwhile() -> None:
    """A server that does nothing for 5 s: whoever was due then waited for the rest of it, and is counted with that."""
    asked = scenario(200, warmup_s=0.0)
    stalled = measured(asked, 5.5, 1, Synthetic(20, constant(0.1), stall_at=100, stall_s=5))
    steady = measured(asked, 5.5, 1, Synthetic(20, constant(0.1)))
    tails = [summarise([point], asked).part("end to end") for point in (stalled, steady)]
    slow, quick = (None if part is None else part.quantiles[0.99] for part in tails)
    assert slow is not None
    assert quick is not None
    assert slow.value > 2.5
    assert quick.value < 0.2

    def due(row: JobRow) -> bool:
        return 100 <= row.intended_s < 105

    for row in filter(due, stalled.rows):
        assert row.latency_s is not None
        assert row.latency_s >= 105 - row.intended_s
    assert sum(map(due, stalled.rows)) == sum(map(due, steady.rows)) > 10


def test_an_overloaded_server_that_refuses_holds_its_goodput() -> None:
    """Twice what it can do: what is accepted is in time, the rest is refused at once and told when to come back."""
    asked = scenario(200)
    summary = summarise([measured(asked, 2.0, seed, Synthetic(1, constant(1.0), most=4)) for seed in (1, 2)], asked)
    assert summary.goodput_hz.value == pytest.approx(1.0, rel=0.05)
    assert summary.outcomes[Outcome.REJECTED] > 100
    assert summary.refused_without_advice == 0
    assert summary.attainment.value == pytest.approx(0.5, abs=0.06)


def test_an_overloaded_server_that_takes_everything_collapses() -> None:
    asked = scenario(200, drain_s=30.0)
    summary = summarise([measured(asked, 2.0, 1, Synthetic(1, constant(1.0)))], asked)
    assert summary.goodput_hz.value < 0.15
    assert summary.outcomes[Outcome.UNFINISHED] > 50
