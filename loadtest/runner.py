"""A run: rates and seeds of one scenario against one server, each measurement kept as soon as it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import httpx

from loadtest.client.dialects import DIALECTS, check
from loadtest.client.scrape import Scraper
from loadtest.folder import JOURNAL, Journal, RunFolder
from loadtest.hurts import Hurts
from loadtest.knee import Knee, search
from loadtest.measure import Measured, measure
from loadtest.mixes import Scenario
from loadtest.parquet import write_trace
from loadtest.processes import Processes
from loadtest.records import JobRow
from loadtest.slo import Summary, summarise
from loadtest.traces import plan

TIMEOUT = httpx.Timeout(20.0, read=60.0, pool=None)


@dataclass(frozen=True, slots=True)
class Target:
    """A server, in whose words it is asked, by whom, and where its metrics are."""

    url: str
    dialect: str = "openai-events"
    keys: Mapping[str, str] = field(default_factory=dict)  # by tenant
    pages: Mapping[str, str] = field(default_factory=dict)  # of metrics, by a name of ours


class Watch(Protocol):
    """Whoever shows how it goes."""

    def begins(self, rate_hz: float, seed: int, requests: int, seconds: float) -> None: ...

    def ended(self, row: JobRow) -> None: ...

    def measured(self, point: Measured, *, before: bool) -> None: ...


class Runner:
    """Measures rates, or reads what was measured before. An async context: it holds the connections."""

    def __init__(
        self,
        scenario: Scenario,
        target: Target,
        folder: RunFolder,
        watch: Watch,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._scenario = scenario
        self._target = target
        self._folder = folder
        self._watch = watch
        # As many connections as requests are open: a client that waits for one of its own would measure that wait.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._http = httpx.AsyncClient(
            base_url=target.url,
            timeout=TIMEOUT,
            limits=limits,
            trust_env=False,
            follow_redirects=True,
            transport=transport,
        )
        self._server = DIALECTS[target.dialect](self._http, target.keys, scenario.poll_s)

    async def __aenter__(self) -> Self:
        check(self._server, self._scenario)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def rate(self, rate_hz: float) -> Summary:
        """Every seed at one rate. ScenarioError; NotHere where the scenario hurts a system that is elsewhere."""
        return summarise([await self._point(rate_hz, seed) for seed in self._scenario.seeds], self._scenario)

    async def sweep(self) -> Knee:
        """Rates up to the knee and beyond it."""

        async def attained(rate_hz: float) -> float:
            return (await self.rate(rate_hz)).attainment.value

        return await search(self._scenario.sweep, attained)

    async def _point(self, rate_hz: float, seed: int) -> Measured:
        known = self._folder.finished(rate_hz, seed)
        if known is not None:
            self._watch.measured(known, before=True)
            return known
        requests = plan(self._scenario, rate_hz, seed)
        point = self._folder.start(rate_hz, seed)
        facts = {"scenario": self._scenario.model_dump_json(), "rate_hz": f"{rate_hz:g}", "seed": str(seed)}
        write_trace(point / "trace.parquet", requests, facts)
        self._watch.begins(rate_hz, seed, len(requests), self._scenario.seconds)
        scraper = Scraper(self._http, self._target.pages, self._admin())
        hurting = None
        if self._scenario.hurts:
            hurting = Hurts(self._http, Processes(self._target.url), self._scenario.hurts)
        with Journal(point / JOURNAL) as journal:

            def heard(row: JobRow) -> None:
                journal.add(row)
                self._watch.ended(row)

            measured = await measure(
                self._scenario, requests, self._server, rate_hz, seed, scraper=scraper, heard=heard, hurting=hurting
            )
        self._folder.finish(measured)
        self._watch.measured(measured, before=False)
        return measured

    def _admin(self) -> dict[str, str]:
        """The first key reads the metrics."""
        key = next(iter(self._target.keys.values()), None)
        return {"Authorization": f"Bearer {key}"} if key else {}
