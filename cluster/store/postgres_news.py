"""News between processes over PostgreSQL's NOTIFY: one message per transaction, heard when that commits.

A process that watches holds one connection that listens. While it is lost, watches poll; once it is back, all look.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cluster.store.news import Hub, News, Topic

CHANNEL = "skyreels_news"
RECONNECT_S = 1.0
PING_S = 30.0
PING_TIMEOUT_S = 5.0
_MOST_NBYTES = 7_500  # of a message; the server takes 8,000
Connect = Callable[[], Awaitable[Any]]


async def announce(connection: AsyncConnection, origin: str, news: News) -> None:
    """Sends the news with the transaction's commit."""
    message = _message(origin, {topic: sorted(keys) for topic, keys in news.items()})
    if len(message) > _MOST_NBYTES:
        message = _message(origin, {topic: [] for topic in news})
    await connection.execute(select(func.pg_notify(CHANNEL, message)))


async def listen(connect: Connect, origin: str, hub: Hub) -> None:
    """Tells the hub what other processes announce, until cancelled; `origin` is this process."""
    while True:
        try:
            await _hear(await connect(), origin, hub)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await asyncio.sleep(RECONNECT_S)


async def _hear(connection: Any, origin: str, hub: Hub) -> None:
    """Returns when the connection is lost."""
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        await connection.add_listener(CHANNEL, lambda *message: _tell(hub, origin, message[-1]))
        hub.connect(True)
        while not lost.is_set():
            try:
                async with asyncio.timeout(PING_S):
                    await lost.wait()
            except TimeoutError:  # an idle connection does not notice that its peer is gone
                await connection.execute("SELECT 1", timeout=PING_TIMEOUT_S)
    finally:
        connection.terminate()
        hub.connect(False)


def _message(origin: str, news: dict[Topic, list[str]]) -> str:
    return json.dumps([origin, news], separators=(",", ":"))


def _tell(hub: Hub, origin: str, message: str) -> None:
    sender, news = json.loads(message)
    if sender != origin:
        hub.tell({Topic(topic): set(keys) for topic, keys in news.items()})
