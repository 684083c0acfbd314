"""Receivers of webhooks and uploads: a real HTTP server whose answers the tests choose by path."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Behaviour = Callable[["Received"], str]  # the answer's status line and headers; "hang" = never an answer


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    nth: int  # of its path, from 1


@dataclass
class Receiver:
    """Answers 204 unless the path has a behaviour."""

    port: int = 0
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    seen: list[Received] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.authority}{path}"

    def at(self, path: str) -> list[Received]:
        return [one for one in self.seen if one.path == path]

    async def until(self, path: str, count: int) -> list[Received]:
        async with self.news:
            await self.news.wait_for(lambda: len(self.at(path)) >= count)
        return self.at(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request, *lines = head.strip().split("\r\n")
            method, path, _ = request.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = path.partition("?")[0]
            self.counts[path] += 1
            received = Received(method, path, headers, body, self.counts[path])
            answer = self.behaviours.get(path, lambda _: "204 No Content")(received)
            async with self.news:
                self.seen.append(received)
                self.news.notify_all()
            if answer == "hang":
                await reader.read()  # until the other side gives up
            else:
                writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()
