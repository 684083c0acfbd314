"""Sending to callers' URLs under the rules of `deployments.fetch`.

Each send takes the URL apart once, resolves its host once, checks every address and connects to one of exactly those.
Redirects are not followed: they would lead a signed body, or a file, to somebody whom the caller did not name.

Reasons name neither the URL nor an address: the job's owner reads them, and the URL may hold a secret.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

import httpx

from cluster.errors import UrlRejected
from deployments.fetch import Resolver, Target, checked_addresses, parse_target, resolve

MAX_RETRY_AFTER_S = 6 * 3600.0  # longer waits that a receiver asks for are cut to this


class SendError(Exception):
    """The receiver was not reached, or broke off; the message says how."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said. Its body is not read."""

    status: int
    retry_after_s: float = 0.0  # as asked for by the receiver


@dataclass(frozen=True, slots=True)
class Content:
    """A body of known length that is made while it is sent."""

    pieces: AsyncIterator[bytes]
    nbytes: int


class Outbound:
    """Sends. Holds no connections: every send opens its own and closes it."""

    def __init__(
        self, allow_hosts: Collection[str], *, resolver: Resolver = resolve, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        """`allow_hosts` are "host:port" pairs that may be reached although they are internal."""
        self._allowed = frozenset(entry.lower() for entry in allow_hosts)
        self._resolver = resolver
        self._ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)

    async def check(self, url: str, *, param: str, timeout_s: float) -> None:
        """Whether the URL may be sent to, as far as that is known now. UrlRejected."""
        try:
            target = parse_target(url)
            async with asyncio.timeout(timeout_s):
                addresses = await checked_addresses(target, self._resolver, self._allowed)
        except UrlRejected as error:
            raise UrlRejected(f"{param}: {error.message}", param=param) from error
        except TimeoutError:
            addresses = ()
        if not addresses:
            message = f"{param}: the host {target.host} has no public address; give a URL on the public internet."
            raise UrlRejected(message, param=param)

    async def send(
        self, method: str, url: str, content: bytes | Content, headers: Mapping[str, str], *, timeout_s: float
    ) -> Answer:
        """One request, answered within `timeout_s` from resolving the name to the answer's head.

        Raises:
            SendError: the URL may not be reached, or its server did not answer in time or at all.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send(method, url, content, headers, timeout_s)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise SendError(f"did not answer within {timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise SendError("broke off before it answered") from error

    async def _send(
        self, method: str, url: str, content: bytes | Content, headers: Mapping[str, str], timeout_s: float
    ) -> Answer:
        try:
            target = parse_target(url)
        except UrlRejected as error:
            raise SendError("is malformed") from error
        addresses = await checked_addresses(target, self._resolver, self._allowed)
        if not addresses:
            raise SendError("has no public address")
        for address in addresses:
            async with httpx.AsyncHTTPTransport(verify=self._ssl_context, trust_env=False) as transport:
                request = _request(method, target, address, content, headers, timeout_s, len(addresses))
                try:
                    response = await transport.handle_async_request(request)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    continue  # nothing of the body is used up
                async with aclosing(response):
                    return Answer(response.status_code, _retry_after_s(response.headers))
        raise SendError(f"cannot be reached over {target.url.scheme}, or its certificate is not valid")


def _request(
    method: str,
    target: Target,
    address: str,
    content: bytes | Content,
    headers: Mapping[str, str],
    timeout_s: float,
    share: int,
) -> httpx.Request:
    nbytes = content.nbytes if isinstance(content, Content) else len(content)
    return httpx.Request(
        method,
        target.url.copy_with(host=address, port=target.port, fragment=None),
        content=content.pieces if isinstance(content, Content) else content,
        headers={
            "Host": target.host_header,
            "User-Agent": "skyreels-serve",
            "Connection": "close",
            "Content-Length": str(nbytes),
            **headers,
        },
        extensions={
            "sni_hostname": target.host,
            "timeout": {"connect": timeout_s / share, "read": timeout_s, "write": timeout_s, "pool": timeout_s},
        },
    )


def _retry_after_s(headers: httpx.Headers) -> float:
    """Seconds, from either form of the header (RFC 9110 §10.2.3); a date is read against the answer's own."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(min(int(value[:9]), MAX_RETRY_AFTER_S))
    until, at = _date(value), _date(headers.get("date", ""))
    if until is None or at is None:
        return 0.0
    return min(max((until - at).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _date(value: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
