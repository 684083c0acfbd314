import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from cluster.config import MediaLimits
from cluster.errors import UrlRejected
from deployments import fetch
from deployments.fetch import Fetcher, decode_base64, decode_data_uri
from tests.certificates import self_signed

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
BODY = b"picture" * 1000


def reply(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    lines = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


@dataclass
class Site:
    """A real HTTP server whose answers are raw bytes; remembers every request's head."""

    port: int = 0
    answers: dict[str, bytes | Answer] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            answer = self.answers.get(head.split(" ")[1].partition("?")[0], reply("404 Not Found", b"secret page"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, host, 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as running:
        running.answers["/a.png"] = reply(body=BODY)
        yield running


def fetcher(*allowed: str, resolver: fetch.Resolver | None = None, **limits: object) -> Fetcher:
    options = {"allow_hosts": allowed, "max_file_nbytes": len(BODY), "fetch_timeout_s": 10} | limits
    return Fetcher(MediaLimits(**options), resolver=resolver or fetch.resolve)


def names(**table: list[str]) -> fetch.Resolver:
    """A resolver that knows these names only ("_" for ".")."""

    async def resolver(host: str, port: int) -> list[str]:
        if host.replace(".", "_") not in table:
            raise OSError("unknown host")
        return table[host.replace(".", "_")]

    return resolver


async def rejected(awaitable: Awaitable[object]) -> UrlRejected:
    with pytest.raises(UrlRejected) as caught:
        await awaitable
    message = caught.value.message
    assert message.endswith(".") and "\n" not in message
    for secret in ("secret", "token", "127.0.0.1:", "10.0.0.7"):
        assert secret not in message
    return caught.value


async def test_allowed_host_is_fetched(site):
    assert await fetcher(site.authority).fetch(site.url("/a.png")) == BODY
    head = site.heads[0].lower()
    assert f"host: {site.authority}\r\n" in head
    assert "accept-encoding: identity" in head and "cookie" not in head and "authorization" not in head


async def test_ipv6():
    async with serving("::1") as site:
        site.answers["/a.png"] = reply(body=BODY)
        assert await fetcher(f"[::1]:{site.port}").fetch(site.url("/a.png", "[::1]")) == BODY
        assert f"Host: [::1]:{site.port}\r\n" in site.heads[0]
        await rejected(fetcher().fetch(site.url("/a.png", "[0:0:0:0:0:0:0:1]")))
        assert len(site.heads) == 1


async def test_query_travels_and_fragment_does_not(site):
    await fetcher(site.authority).fetch(site.url("/a.png?X-Sig=a%2Fb%20c&n=1#top"))
    assert site.heads[0].startswith("GET /a.png?X-Sig=a%2Fb%20c&n=1 HTTP/1.1")


async def test_internal_hosts_are_refused_without_the_allow_list(site):
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.0.0.1.", "LOCALHOST"):
        await rejected(fetcher().fetch(site.url("/a.png", host)))
    assert site.heads == []


async def test_allow_list_is_exact(site):
    for other in ("127.0.0.1", f"localhost:{site.port}", f"127.0.0.1:{site.port + 1}", f"7.0.0.1:{site.port}"):
        await rejected(fetcher(other).fetch(site.url("/a.png")))
    assert site.heads == []


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.0x1", "%31%32%37.0.0.1", "[::1%25lo]",
     "a..b", "", "ex ample.com", "127.0.0.1%00.example.com", "exa\\mple.com", "[::1", "-", "a" * 64 + ".com"],
)  # fmt: skip
async def test_other_spellings_of_hosts_are_refused_unresolved(host):
    asked = []

    async def resolver(name: str, port: int) -> list[str]:
        asked.append(name)
        return []

    await rejected(fetcher(resolver=resolver).fetch(f"http://{host}/a.png"))
    assert asked in ([], ["-"])


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com/a", "file:///etc/passwd", "gopher://example.com", "example.com/a.png", "//example.com/a.png",
     "", "http://", "http:///a.png", "http://example.com:0/", "http://example.com:99999/", "http://example.com:x/",
     "http://user:token@example.com/", "http://user@example.com/", "http://a\r\nb/", "http://x/" + "a" * 9000],
)  # fmt: skip
async def test_malformed_urls(url):
    error = await rejected(fetcher(resolver=names()).fetch(url, param="images"))
    assert error.param == "images"


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.7"], ["169.254.169.254"], ["8.8.8.8", "10.0.0.7"], ["2606:4700::1", "::1"], ["::ffff:10.0.0.7"],
     ["64:ff9b::a00:7"], ["fd00:ec2::254"], []],
)  # fmt: skip
async def test_every_resolved_address_must_be_public(addresses, monkeypatch):
    async def connect(*_: object, **__: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(fetch.httpx.AsyncHTTPTransport, "handle_async_request", connect)
    resolver = names(img_example=addresses)
    inside = await rejected(fetcher(resolver=resolver).fetch("http://img.example/a.png?token=1"))
    # A name that does not exist reads the same: the answer is no map of the internal DNS.
    unknown = await rejected(fetcher(resolver=resolver).fetch("http://xyz.example/a.png?token=1"))
    assert inside.message == unknown.message.replace("xyz", "img")


async def test_the_checked_address_is_the_one_connected_to(monkeypatch):
    """A name server that changes its mind between check and connection gains nothing."""
    answers = [["127.0.0.2"], ["127.0.0.1"]]
    asked = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.2")
    async with serving("127.0.0.2") as public, serving("127.0.0.1") as internal:
        public.answers["/a.png"] = internal.answers["/a.png"] = reply(body=b"ok")
        assert await fetcher(resolver=rebinding).fetch(public.url("/a.png", "img.example")) == b"ok"
    assert asked == ["img.example"]
    assert internal.heads == []
    assert f"Host: img.example:{public.port}\r\n" in public.heads[0]


async def test_next_address_when_one_does_not_answer(site):
    resolver = names(img_example=["127.0.0.9", "127.0.0.1"])
    assert await fetcher(f"img.example:{site.port}", resolver=resolver).fetch(site.url("/a.png", "img.example")) == BODY


async def test_redirects_are_followed_and_relative_ones_too(site):
    site.answers["/1"] = reply("302 Found", location="/2?x=1")
    site.answers["/2"] = reply("307 Temporary Redirect", location=site.url("/3"))
    site.answers["/3"] = reply("301 Moved Permanently", location="a.png")
    assert await fetcher(site.authority).fetch(site.url("/1")) == BODY
    assert len(site.heads) == 4


async def test_too_many_redirects(site):
    site.answers["/loop"] = reply("302 Found", location="/loop")
    error = await rejected(fetcher(site.authority).fetch(site.url("/loop")))
    assert "more than 3" in error.message and len(site.heads) == 4


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/secret", "http://localhost:{port}/a.png", "http://[::1]:{port}/a.png",
     "http://10.0.0.7/secret", "http://2130706433/", "file:///etc/passwd", "ftp://example.com/", "http://u:p@img.example/",
     "//127.0.0.3/a.png", "http://[::1"],
)  # fmt: skip
async def test_redirects_to_the_inside_are_refused(site, location):
    site.answers["/out"] = reply("302 Found", b"secret", location=location.format(port=site.port))
    await rejected(fetcher(site.authority).fetch(site.url("/out")))
    assert len(site.heads) == 1


async def test_error_statuses_say_the_status_and_nothing_of_the_page(site):
    error = await rejected(fetcher(site.authority).fetch(site.url("/missing?token=1")))
    assert "404" in error.message
    for status in ("500 Oops", "204 No Content", "206 Partial Content", "302 Found", "401 secret"):
        site.answers["/odd"] = reply(status)
        assert status[:3] in (await rejected(fetcher(site.authority).fetch(site.url("/odd")))).message


async def test_size_limit(site):
    limited = fetcher(site.authority, max_file_nbytes=len(BODY) - 1)
    assert "larger than" in (await rejected(limited.fetch(site.url("/a.png")))).message

    # Without a length: the count decides, and an endless body ends.
    stopped = asyncio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        finally:
            stopped.set()

    site.answers["/endless"] = endless
    assert "larger than" in (await rejected(fetcher(site.authority).fetch(site.url("/endless")))).message
    await asyncio.wait_for(stopped.wait(), 10)


async def test_lies_about_the_length(site):
    site.answers["/short"] = b"HTTP/1.1 200 OK\r\ncontent-length: 6000\r\n\r\nonly this"
    assert "broke off" in (await rejected(fetcher(site.authority).fetch(site.url("/short")))).message
    site.answers["/long"] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef"
    assert await fetcher(site.authority).fetch(site.url("/long")) == b"abc"
    site.answers["/negative"] = b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nabc"
    await rejected(fetcher(site.authority).fetch(site.url("/negative")))


async def test_compressed_answers_are_refused(site):
    site.answers["/gzip"] = reply(body=b"\x1f\x8b", content_encoding="gzip")
    assert "compressed" in (await rejected(fetcher(site.authority).fetch(site.url("/gzip")))).message


async def test_no_web_server(site):
    async def garbage(writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-secret\r\n\r\n")

    site.answers["/ssh"] = garbage
    await rejected(fetcher(site.authority).fetch(site.url("/ssh")))


async def test_closed_port():
    async with serving() as site:
        pass
    assert "cannot be reached" in (await rejected(fetcher(site.authority).fetch(site.url("/a.png")))).message


async def test_silence_ends_in_time(site):
    hang_up = asyncio.Event()

    async def silent(writer: asyncio.StreamWriter) -> None:
        await hang_up.wait()

    site.answers["/silent"] = silent
    error = await rejected(fetcher(site.authority, fetch_timeout_s=0.2).fetch(site.url("/silent"), param="images"))
    hang_up.set()
    assert "within 0.2 s" in error.message and error.param == "images"


async def test_dripping_ends_in_time(site):
    """Each byte comes well before any read would time out; the whole does not."""
    gone = asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.02)
        finally:
            gone.set()

    site.answers["/drip"] = drip
    assert "within" in (await rejected(fetcher(site.authority, fetch_timeout_s=0.3).fetch(site.url("/drip")))).message
    await asyncio.wait_for(gone.wait(), 10)


async def test_slow_name_server_ends_in_time():
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    assert "within" in (await rejected(fetcher(resolver=never, fetch_timeout_s=0.1).fetch("http://a.example/"))).message


async def test_proxy_variables_are_ignored(site, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await fetcher(site.authority).fetch(site.url("/a.png")) == BODY


async def test_signed_urls_stay_out_of_the_log(site, caplog):
    caplog.set_level(logging.INFO)
    await fetcher(site.authority).fetch(site.url("/a.png?token=1"))
    await rejected(fetcher(site.authority).fetch(site.url("/missing?token=1")))
    assert "token" not in caplog.text


def certificate(tmp_path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's context, client's context that trusts it) for a self-signed certificate of this name."""
    pem, secret = self_signed(name)
    (tmp_path / "server.pem").write_bytes(pem + secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_tls_checks_the_name_and_not_the_address(tmp_path):
    server, client = certificate(tmp_path, "img.example")
    seen: list[str | None] = []
    server.sni_callback = lambda _, name, __: seen.append(name)
    async with serving(tls=server) as site:
        site.answers["/a.png"] = reply(body=BODY)
        limits = MediaLimits(allow_hosts=(f"img.example:{site.port}", f"other.example:{site.port}"))
        resolver = names(img_example=["127.0.0.1"], other_example=["127.0.0.1"])
        secure = Fetcher(limits, resolver=resolver, ssl_context=client)
        assert await secure.fetch(site.url("/a.png", "img.example", "https")) == BODY
        assert seen == ["img.example"]
        assert f"Host: img.example:{site.port}\r\n" in site.heads[0]

        error = await rejected(secure.fetch(site.url("/a.png", "other.example", "https")))
        assert "certificate" in error.message
        untrusting = Fetcher(limits, resolver=resolver)
        await rejected(untrusting.fetch(site.url("/a.png", "img.example", "https")))
        assert len(site.heads) == 1


async def test_default_ports_are_not_written(monkeypatch):
    assert fetch.parse_target("https://img.example:443/a").host_header == "img.example"
    assert fetch.parse_target("http://img.example:443/a").host_header == "img.example:443"
    assert fetch.parse_target("http://[2606:4700::1]/a").host_header == "[2606:4700::1]"
    assert fetch.parse_target("http://[2606:4700::1]:8080/a").authority == "[2606:4700::1]:8080"
    assert fetch.parse_target("http://Bücher.example/").host == "xn--bcher-kva.example"


def data_uri(data: bytes, prefix: str = "data:image/png;base64,") -> str:
    return prefix + base64.b64encode(data).decode()


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:;base64,", "DATA:image/svg+xml;Base64,",
                                    "data:image/png;name=a.png;base64,"])  # fmt: skip
def test_data_uris(prefix):
    assert decode_data_uri(data_uri(BODY, prefix), len(BODY)) == BODY


@pytest.mark.parametrize("nbytes", [0, 1, 2, 3, 4, 100])
def test_inline_limit_is_exact(nbytes):
    data = bytes(range(nbytes))
    assert decode_data_uri(data_uri(data), nbytes) == data
    assert decode_base64(base64.b64encode(data).decode(), nbytes) == data
    if nbytes:
        with pytest.raises(UrlRejected, match="larger than"):
            decode_data_uri(data_uri(data), nbytes - 1)


@pytest.mark.parametrize(
    "text",
    ["", "data:", "data:image/png,abc", "data:image/png;base64", "image/png;base64,AAAA", "data:image/png;base64,A",
     "data:image/png;base64,AAA", "data:image/png;base64,AA AA", "data:image/png;base64,AA-_",
     "data:image/png;base64,ü", "data:image/png;base64,AAAA\n", "http://example.com"],
)  # fmt: skip
def test_bad_data_uris(text):
    with pytest.raises(UrlRejected):
        decode_data_uri(text, 100)
