"""What `/metrics` pages say before, during and after a measurement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest.records import Sample

PERIOD_S = 2.0
WANTED = ("skyreels_", "ray_skyreels_", "vllm", "sglang", "lightx2v")  # of pages with thousands of series


class Scraper:
    """Reads pages by name: all before and after, the first one during, because large pages cost the generator time that
    it needs to be punctual. `failures` counts pages that could not be read.
    """

    def __init__(self, http: httpx.AsyncClient, pages: Mapping[str, str], headers: Mapping[str, str]) -> None:
        self._http = http
        self._pages = tuple(pages.items())
        self._headers = dict(headers)
        self.samples: list[Sample] = []
        self.failures = 0

    async def all(self, at_s: float) -> None:
        """Every page now."""
        for page in self._pages:
            await self._read(*page, at_s)

    async def run(self, began_at: float) -> None:
        """The first page, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while self._pages:
            await asyncio.sleep(PERIOD_S)
            await self._read(*self._pages[0], loop.time() - began_at)

    async def _read(self, source: str, url: str, at_s: float) -> None:
        try:
            response = await self._http.get(url, headers=self._headers)
            self.samples += read(response.raise_for_status().text, source, at_s)
        except (httpx.HTTPError, ValueError):
            self.failures += 1


def read(text: str, source: str, at_s: float) -> Iterator[Sample]:
    """The series of a page that say something about serving, without buckets. ValueError: it is no such page."""
    for family in text_string_to_metric_families(text):
        if family.name.startswith(WANTED):
            for sample in family.samples:
                if not sample.name.endswith(("_bucket", "_created")):
                    yield Sample(at_s, source, sample.name, dict(sample.labels), float(sample.value))
