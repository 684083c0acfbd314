"""Fetching what a client's URL names, without becoming its way into the internal network.

Each hop: the URL is taken apart once, its host resolved once, every address checked, and the connection made to one of
exactly those addresses, so a second DNS answer cannot redirect it. The Host header, SNI and certificate check keep
the name. Requests go through httpx's transport and not its client: no redirects, proxies, cookies, content decoding
or request log (which would hold signed URLs).

Messages name the host of the caller's own URL and nothing behind it: no path, no query, no resolved address, no
answer's content. A host that does not exist and one that is internal read the same.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from ipaddress import ip_address

import httpx

from cluster.config import MediaLimits
from cluster.errors import UrlRejected
from deployments.addresses import is_public

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_REDIRECTS = 3
_MAX_URL_CHARS = 8192
_MAX_ADDRESSES = 4  # tried one after another
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")  # as a last label: an IPv4 address in one of its other spellings
_DATA_URI = re.compile(
    r"data:([\w.+-]{1,127}/[\w.+-]{1,127})?(;[\w.+-]{1,127}=[\w.+-]{1,127}){0,9};base64,", re.IGNORECASE
)


async def resolve(host: str, port: int) -> Sequence[str]:
    """The host's addresses from the system's resolver, in its order. OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Target:
    """One hop: where to connect is decided later, what to say there is here."""

    url: httpx.URL
    host: str  # lower case, ASCII, no trailing dot, IPv6 without brackets
    port: int

    @property
    def authority(self) -> str:
        """host:port as written in an allow-list."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        if self.port == _PORTS[self.url.scheme]:
            return self.authority.removesuffix(f":{self.port}")
        return self.authority


class Fetcher:
    """Fetches callers' URLs within the limits. Holds no connections: every hop opens its own and closes it."""

    def __init__(
        self, limits: MediaLimits, *, resolver: Resolver = resolve, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        """`limits.allow_hosts` are "host:port" pairs that may be fetched although they are internal."""
        self._limits = limits
        self._resolver = resolver
        self._allowed = frozenset(entry.lower() for entry in limits.allow_hosts)
        self._ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)

    async def fetch(self, url: str, *, param: str | None = None) -> bytes:
        """The body behind `url`, at most `max_file_nbytes`, within `fetch_timeout_s` for all hops together.

        Raises:
            UrlRejected: the URL is malformed or leads inside, or its server does not answer with a small enough
                file in time. `param` names the request's field in the error.
        """
        try:
            async with asyncio.timeout(self._limits.fetch_timeout_s):
                return await self._follow(url)
        except UrlRejected as error:
            raise UrlRejected(error.message, param=param) from error
        except TimeoutError as error:
            message = (
                f"The URL did not deliver its file within {self._limits.fetch_timeout_s:g} s; send the file itself."
            )
            raise UrlRejected(message, param=param) from error

    async def _follow(self, url: str) -> bytes:
        target = parse_target(url)
        subject = f"The URL's host {target.host}"
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._hop(target, subject)
            if isinstance(answer, bytes):
                return answer
            target = answer
            subject = "A host that the URL redirects to"
        raise UrlRejected(f"The URL redirects more than {MAX_REDIRECTS} times; send the final URL.")

    async def _hop(self, target: Target, subject: str) -> bytes | Target:
        addresses = await self._addresses(target, subject)
        for address in addresses:
            async with httpx.AsyncHTTPTransport(verify=self._ssl_context, trust_env=False) as transport:
                try:
                    response = await transport.handle_async_request(self._request(target, address, len(addresses)))
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    continue
                except httpx.TimeoutException as error:
                    raise TimeoutError from error
                except httpx.TransportError as error:
                    raise UrlRejected(f"{subject} does not answer as a web server.") from error
                async with aclosing(response):
                    return await self._answer(target, subject, response)
        raise UrlRejected(f"{subject} cannot be reached over {target.url.scheme}, or its certificate is not valid.")

    async def _addresses(self, target: Target, subject: str) -> Sequence[str]:
        """The addresses to connect to, all of them checked."""
        addresses = await checked_addresses(target, self._resolver, self._allowed)
        if not addresses:
            raise UrlRejected(f"{subject} has no public address; send a public URL, a data URI or the file itself.")
        return addresses

    def _request(self, target: Target, address: str, share: int) -> httpx.Request:
        """A request that connects to `address` and speaks to `target.host`."""
        total_s = self._limits.fetch_timeout_s
        return httpx.Request(
            "GET",
            target.url.copy_with(host=address, port=target.port, fragment=None),
            headers={
                "Host": target.host_header,
                "User-Agent": "skyreels-serve",
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
            },
            extensions={
                "sni_hostname": target.host,
                "timeout": {"connect": total_s / share, "read": total_s, "write": total_s, "pool": total_s},
            },
        )

    async def _answer(self, target: Target, subject: str, response: httpx.Response) -> bytes | Target:
        if response.status_code in _REDIRECTS and "location" in response.headers:
            try:
                return parse_target(str(target.url.join(response.headers["location"])))
            except (httpx.InvalidURL, UrlRejected) as error:
                raise UrlRejected("The URL redirects to an address that is not a plain http or https URL.") from error
        if response.status_code != httpx.codes.OK:
            raise UrlRejected(f"{subject} answered with status {response.status_code}; check that the URL is public.")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise UrlRejected(f"{subject} sends the file compressed although it was asked not to.")
        limit = self._limits.max_file_nbytes
        too_large = f"The URL's file is larger than {limit} bytes."
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise UrlRejected(too_large)
        data = bytearray()
        try:
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > limit:
                    raise UrlRejected(too_large)
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except httpx.TransportError as error:
            raise UrlRejected(f"{subject} broke off in the middle of the file.") from error
        return bytes(data)


async def checked_addresses(target: Target, resolver: Resolver, allowed: Collection[str]) -> Sequence[str]:
    """Where a hop may connect to: the addresses of its host, none when one of them leads inside. `allowed` are the
    authorities (host:port) that may.
    """
    try:
        addresses: Sequence[str] = [str(ip_address(target.host))]
    except ValueError:
        try:
            addresses = await resolver(target.host, target.port)
        except (OSError, UnicodeError):
            return ()
    public = target.authority in allowed or all(is_public(address) for address in addresses)
    return addresses[:_MAX_ADDRESSES] if public else ()


def parse_target(url: str) -> Target:
    """Takes a URL apart once, so that what is checked is what is used.

    Raises:
        UrlRejected: not http or https, no host, credentials, an unusual spelling of an address.
    """
    if len(url) > _MAX_URL_CHARS:
        raise UrlRejected(f"The URL is longer than {_MAX_URL_CHARS} characters.")
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower().removesuffix(".")
        port = parsed.port or _PORTS.get(parsed.scheme, 0)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise UrlRejected("The URL is malformed; it must look like 'https://host/path'.") from error
    if parsed.scheme not in _PORTS:
        raise UrlRejected("The URL must begin with http:// or https://.")
    if parsed.userinfo:
        raise UrlRejected("The URL must not hold a user name or password; use a signed URL instead.")
    try:
        host = str(ip_address(host if "%" not in host else ""))  # an IPv6 zone names an interface of this machine
    except ValueError:
        if not _NAME.fullmatch(host) or len(host) > 253 or _NUMBER.fullmatch(host.rpartition(".")[2]):
            raise UrlRejected("The URL's host is malformed; write a host name or a plain IP address.") from None
    if not 0 < port < 65536:
        raise UrlRejected("The URL's port must be 1 to 65535.")
    return Target(parsed, host, port)


def decode_data_uri(text: str, max_nbytes: int) -> bytes:
    """The bytes of `data:<type>;base64,<data>`; the declared type is not believed and not returned.

    Raises:
        UrlRejected: another form, not base64, or more than `max_nbytes` (known before anything is decoded).
    """
    prefix = _DATA_URI.match(text)
    if prefix is None:
        raise UrlRejected("The data URI must look like 'data:image/png;base64,…'.")
    return decode_base64(text[prefix.end() :], max_nbytes)


def decode_base64(text: str, max_nbytes: int) -> bytes:
    """The bytes of plain base64 text (standard alphabet, padded). UrlRejected as `decode_data_uri`."""
    if len(text) * 3 // 4 - text[-2:].count("=") > max_nbytes:
        raise UrlRejected(f"The inline file is larger than {max_nbytes} bytes.")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UrlRejected("The inline file is not valid base64; use the standard alphabet with padding.") from error
