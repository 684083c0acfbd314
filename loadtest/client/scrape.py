"""What `/metrics` pages say before, during and after a measurement."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest.records import Sample

PERIOD_S = 2.0
OURS = ("skyreels_", "ray_skyreels_")
WANTED = (*OURS, "vllm", "sglang", "lightx2v", "serve_", "ray_serve_")  # of pages with thousands of series


class Scraper:
    """Reads pages by name; `failures` counts those that could not be read."""

    def __init__(self, http: httpx.AsyncClient, pages: Mapping[str, str], headers: Mapping[str, str]) -> None:
        self._http = http
        self._pages = pages
        self._headers = dict(headers)
        self.samples: list[Sample] = []
        self.failures = 0

    async def once(self, at_s: float) -> None:
        """Every page now."""
        for source, url in self._pages.items():
            try:
                response = await self._http.get(url, headers=self._headers)
                self.samples += read(response.raise_for_status().text, source, at_s)
            except (httpx.HTTPError, ValueError):
                self.failures += 1

    async def run(self, began_at: float) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.once(loop.time() - began_at)
            await asyncio.sleep(PERIOD_S)


def read(text: str, source: str, at_s: float) -> Iterator[Sample]:
    """The series of a page that say something about serving, without buckets. ValueError: it is no such page."""
    for family in text_string_to_metric_families(text):
        if family.name.startswith(WANTED):
            for sample in family.samples:
                if not sample.name.endswith(("_bucket", "_created")):
                    yield Sample(at_s, source, sample.name, dict(sample.labels), float(sample.value))
