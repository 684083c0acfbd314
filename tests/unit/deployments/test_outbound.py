"""Sends go where the check looked, are bounded, and tell nothing of what is behind the URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from cluster.errors import UrlRejected
from deployments.outbound import MAX_RETRY_AFTER_S, Content, Outbound, SendError
from tests.unit.deployments.receivers import Receiver, receiving


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def post(outbound: Outbound, url: str, timeout_s: float = 20.0) -> int:
    return (await outbound.send("POST", url, b"{}", {"X-Mine": "1"}, timeout_s=timeout_s)).status


async def test_the_address_that_was_checked_is_the_one_connected_to(receiver: Receiver) -> None:
    """A name that turns internal after the door is refused when it is sent to; the name is asked for once a send."""
    answers = [["93.184.215.14"], ["127.0.0.1"], ["93.184.215.14", "127.0.0.1"], []]
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    outbound = Outbound([], resolver=rebinding)
    url = f"http://hook.example:{receiver.port}/hook"
    await outbound.check(url, param="webhook_url", timeout_s=5)
    for _ in range(3):
        with pytest.raises(SendError, match="no public address"):
            await post(outbound, url)
    assert len(asked) == 4
    assert not receiver.seen


async def test_an_allowed_name_is_connected_to_by_address_and_spoken_to_by_name(receiver: Receiver) -> None:
    async def internal(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    authority = f"hook.example:{receiver.port}"
    outbound = Outbound([authority.upper()], resolver=internal)
    assert await post(outbound, f"http://{authority}/hook?token=1#part") == 204
    (got,) = receiver.seen
    assert (got.headers["host"], got.headers["x-mine"], got.body) == (authority, "1", b"{}")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://[::1]/", "http://0x7f.1/", "gopher://a.example/", "x" * 9000]
)
async def test_the_door_names_the_field(url: str) -> None:
    with pytest.raises(UrlRejected, match=r"^webhook_url") as caught:
        await Outbound([]).check(url, param="webhook_url", timeout_s=5)
    assert caught.value.param == "webhook_url"


async def test_who_does_not_answer_is_left(receiver: Receiver) -> None:
    receiver.behaviours["/hook"] = lambda _: "hang"
    outbound = Outbound([receiver.authority])
    with pytest.raises(SendError, match=r"^did not answer within 0\.2 s$"):
        await post(outbound, receiver.url("/hook?secret"), timeout_s=0.2)
    with pytest.raises(SendError, match="cannot be reached"):
        await post(Outbound(["127.0.0.1:1"]), "http://127.0.0.1:1/")


async def test_a_body_is_made_while_it_is_sent(receiver: Receiver) -> None:
    made = [b"a" * 70_000, b"b" * 70_000]

    async def pieces() -> AsyncIterator[bytes]:
        for piece in made:
            yield piece

    outbound = Outbound([receiver.authority])
    await outbound.send("PUT", receiver.url("/put"), Content(pieces(), 140_000), {}, timeout_s=20)
    assert receiver.seen[0].body == b"".join(made)


@pytest.mark.parametrize(
    ("header", "seconds"), [("120", 120), ("999999999999", MAX_RETRY_AFTER_S), ("soon", 0), ("-5", 0), ("", 0)]
)
async def test_retry_after_in_seconds(receiver: Receiver, header: str, seconds: float) -> None:
    receiver.behaviours["/hook"] = lambda _: f"429 Slow down\r\nRetry-After: {header}"
    answer = await Outbound([receiver.authority]).send("POST", receiver.url("/hook"), b"", {}, timeout_s=20)
    assert (answer.status, answer.retry_after_s) == (429, seconds)


async def test_retry_after_as_a_date_is_read_by_the_receivers_clock(receiver: Receiver) -> None:
    now = datetime(2020, 1, 1, tzinfo=UTC)
    dates = f"Date: {format_datetime(now, usegmt=True)}\r\nRetry-After: "
    until = format_datetime(now + timedelta(seconds=90), usegmt=True)
    receiver.behaviours["/hook"] = lambda _: f"503 Busy\r\n{dates}{until}"
    answer = await Outbound([receiver.authority]).send("POST", receiver.url("/hook"), b"", {}, timeout_s=20)
    assert answer.retry_after_s == 90
