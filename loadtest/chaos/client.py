"""A patient HTTP client: tries again while the edge is down, waits when told to, and counts what it met."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

TIMEOUT_S = 20.0
GIVE_UP_S = 300.0
PAUSE_S = 0.3


class GaveUp(Exception):
    """The system did not answer for so long that waiting on would hide an outage."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server's own description says that it can do."""

    paths: frozenset[str]
    create_headers: frozenset[str]

    @classmethod
    def read(cls, openapi: Mapping[str, Any]) -> Offer:
        """From `/openapi.json`."""
        create = openapi["paths"]["/v1/videos"]["post"]
        headers = [entry["name"].lower() for entry in create.get("parameters", ()) if entry["in"] == "header"]
        return cls(frozenset(openapi["paths"]), frozenset(headers))

    @property
    def once(self) -> bool:
        """Whether a create can be repeated under an Idempotency-Key."""
        return "idempotency-key" in self.create_headers

    @property
    def usage(self) -> bool:
        """Whether the ledger can be read."""
        return "/v1/usage" in self.paths

    @property
    def webhooks(self) -> bool:
        """Whether ends are told to receivers."""
        return "/v1/webhooks/secret" in self.paths

    @property
    def events(self) -> bool:
        """Whether a job's log can be read."""
        return "/v1/videos/{video_id}/events" in self.paths


class Client:
    """Requests in the names of several tenants."""

    def __init__(self, url: str, keys: Sequence[str | None]) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False)
        self._keys = keys
        self.answers: Counter[str] = Counter()  # by status or kind of transport error

    @property
    def tenants(self) -> int:
        """In whose names it can ask."""
        return len(self._keys)

    async def close(self) -> None:
        await self._http.aclose()

    async def once(self, method: str, path: str, tenant: int = 0, **content: Any) -> httpx.Response | None:
        """One try. None when no answer came, or one that says nothing about what was done (the proxy's own 5xx)."""
        key = self._keys[tenant]
        headers = dict(content.pop("headers", {})) | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            response = await self._http.request(method, path, headers=headers, **content)
        except httpx.TransportError as error:
            self.answers[type(error).__name__] += 1
            return None
        self.answers[str(response.status_code)] += 1
        return None if response.status_code >= 500 else response

    async def ask(self, method: str, path: str, tenant: int = 0, **content: Any) -> tuple[httpx.Response, int]:
        """The first answer below 500, and how many tries before it went without.

        Raises:
            GaveUp: there was none for minutes.
        """
        deadline = time.monotonic() + GIVE_UP_S
        unanswered = 0
        while True:
            response = await self.once(method, path, tenant, **content)
            if response is None:
                unanswered += 1
            elif response.status_code != 429:
                return response, unanswered
            if time.monotonic() > deadline:
                raise GaveUp(f"{method} {path} got no answer for {GIVE_UP_S:g} s.")
            told = 0.0 if response is None else float(response.headers.get("retry-after", 0))
            await asyncio.sleep(max(told, PAUSE_S))

    async def json(self, path: str, tenant: int = 0, **params: Any) -> Any:
        """The JSON of a GET. GaveUp; httpx.HTTPStatusError."""
        response, _ = await self.ask("GET", path, tenant, params=params)
        return response.raise_for_status().json()
