"""Webhooks and uploads against real receivers: at least once, in order, and nobody waits for another's receiver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openai
import pytest
from standardwebhooks import Webhook

from cluster.config import Deliveries
from cluster.deliveries import Outcome, Parcel, ParcelState
from cluster.records import Delivery, Dialect, Failure
from cluster.store import open_store
from cluster.store.base import JobStore
from deployments.artifacts import ArtifactStore
from deployments.carrier import Carrier
from deployments.outbound import Outbound
from deployments.webhooks import openai as openai_event
from tests.unit.cluster.makers import ARTIFACT, request
from tests.unit.cluster.store.play import TENANT, Play, outputs
from tests.unit.deployments.receivers import Receiver, receiving

QUICK: dict[str, Any] = {"poll_s": 0.02, "backoff_s": 0.02, "backoff_max_s": 0.05, "timeout_s": 20, "max_attempts": 4}
GOOD, BAD = "204 No Content", "500 Internal Server Error"


@dataclass
class Post:
    """A store, its files, and carriers that may send to the test's receivers."""

    play: Play
    artifacts: ArtifactStore
    told: list[tuple[Parcel, Outcome]]

    @property
    def store(self) -> JobStore:
        return self.play.store

    @asynccontextmanager
    async def carrying(self, *receivers: Receiver, **settings: Any) -> AsyncIterator[Carrier]:
        outbound = Outbound([receiver.authority for receiver in receivers])
        renders = {Dialect.OPENAI: openai_event}
        limits, log = Deliveries(**(QUICK | settings)), logging.getLogger("carrier")
        carrier = Carrier(self.store, self.artifacts, outbound, renders, limits, log, self._told)
        carrier.start()
        try:
            yield carrier
            assert carrier.healthy
        finally:
            await carrier.close()

    def _told(self, parcel: Parcel, outcome: Outcome, seconds: float) -> None:
        self.told.append((parcel, outcome))

    async def owe(self, job_id: str, url: str, **changes: Any) -> None:
        """A failed job with a webhook."""
        await self.play.create(job_id, request(delivery=replace(Delivery(webhook_url=url), **changes)))
        await self.store.fail_job(self.play.leadership, job_id, Failure("broken", "It broke."))

    async def finish(self, job_id: str, uri: str, nbytes: int = ARTIFACT.nbytes, sha256: str = ARTIFACT.sha256) -> None:
        """The job's result is the file at this URI."""
        await self.play.until("decode", job_id)
        call = (await self.play.take("decode", job_id)).call
        await self.store.complete(call, outputs("decode"), replace(ARTIFACT, uri=uri, nbytes=nbytes, sha256=sha256))

    async def until(self, reached: Callable[[dict[str, Parcel]], bool]) -> dict[str, Parcel]:
        """Parcels by job, once they are as the test wants them."""
        while True:
            parcels = {f"{one.job_id}": one for one in (await self.store.parcels(TENANT, limit=1000)).parcels}
            if reached(parcels):
                return parcels
            await asyncio.sleep(0.01)


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    store = open_store(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    await store.open()
    leadership = await store.lead("s1", 600.0)
    assert leadership is not None
    yield Post(Play(store, leadership), ArtifactStore(str(tmp_path / "artifacts")), [])
    await store.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def settled(*jobs: str) -> Callable[[dict[str, Parcel]], bool]:
    return lambda parcels: all(parcels[job].settled_at is not None for job in jobs)


async def test_a_webhook_is_signed_and_openais_sdk_takes_it(post: Post, receiver: Receiver) -> None:
    await post.play.create(request=request(delivery=Delivery(webhook_url=receiver.url("/hook"))))
    await post.play.published()
    (secret,) = await post.store.webhook_secrets(TENANT)
    async with post.carrying(receiver):
        (got,) = await receiver.until("/hook", 1)
        parcels = await post.until(settled("j1"))
    assert got.method == "POST"
    assert got.headers["webhook-id"] == parcels["j1"].id
    told = Webhook(secret).verify(got.body, got.headers)
    assert told | {"created_at": 0, "id": ""} == {
        "id": "", "object": "event", "type": "video.completed", "created_at": 0, "data": {"id": "j1"},
    }  # fmt: skip
    event = openai.OpenAI(api_key="none", webhook_secret=secret).webhooks.unwrap(got.body, got.headers)
    assert event.type == "video.completed"
    assert event.data.id == "j1"


async def test_a_failed_job_says_so_and_a_rotation_signs_with_both(post: Post, receiver: Receiver) -> None:
    (old,) = await post.store.webhook_secrets(TENANT)
    new = (await post.store.rotate_webhook_secret(TENANT, overlap_s=600))[0]
    await post.owe("j1", receiver.url("/hook"))
    async with post.carrying(receiver):
        (got,) = await receiver.until("/hook", 1)
    for secret in (old, new):
        assert Webhook(secret).verify(got.body, got.headers)["type"] == "video.failed"


async def test_a_failing_receiver_gets_the_same_message_again(post: Post, receiver: Receiver) -> None:
    receiver.behaviours["/hook"] = lambda received: GOOD if received.nth == 3 else BAD
    await post.owe("j1", receiver.url("/hook"))
    async with post.carrying(receiver):
        parcels = await post.until(settled("j1"))
    assert (parcels["j1"].state, parcels["j1"].attempts) == (ParcelState.DELIVERED, 3)
    got = receiver.at("/hook")
    assert len(got) == 3
    assert len({(one.headers["webhook-id"], one.body) for one in got}) == 1


@pytest.mark.parametrize(
    ("answer", "attempts", "reason"),
    [
        (BAD, 4, "status 500"),
        ("302 Found\r\nLocation: /elsewhere", 4, "redirect"),
        ("410 Gone", 1, "gone for good"),
    ],
)
async def test_dead_letters(post: Post, receiver: Receiver, answer: str, attempts: int, reason: str) -> None:
    receiver.behaviours["/hook"] = lambda _: answer
    await post.owe("j1", receiver.url("/hook?token=secret"))
    async with post.carrying(receiver):
        parcels = await post.until(settled("j1"))
        dead = parcels["j1"]
        assert (dead.state, dead.attempts) == (ParcelState.DEAD, attempts)
        assert dead.last_error is not None
        assert reason in dead.last_error
        assert "secret" not in dead.last_error
        assert not receiver.at("/elsewhere")
        receiver.behaviours.clear()
        await post.store.resend_parcel(dead.id, TENANT)
        await post.until(lambda now: now["j1"].state is ParcelState.DELIVERED)
    assert {one.headers["webhook-id"] for one in receiver.seen} == {dead.id}


async def test_a_receiver_may_ask_for_time(post: Post, receiver: Receiver) -> None:
    receiver.behaviours["/hook"] = lambda _: "503 Busy\r\nRetry-After: 3000"
    await post.owe("j1", receiver.url("/hook"))
    async with post.carrying(receiver):
        parcels = await post.until(lambda now: now["j1"].last_status == 503)
    assert (parcels["j1"].next_at - parcels["j1"].created_at).total_seconds() >= 3000


async def test_internal_addresses_are_checked_again_when_it_is_sent(post: Post, receiver: Receiver) -> None:
    await post.owe("j1", receiver.url("/hook"))
    async with post.carrying():  # nobody is allowed
        parcels = await post.until(settled("j1"))
    assert parcels["j1"].last_error == "has no public address"
    assert not receiver.seen


async def test_dead_and_hanging_receivers_delay_nobody(post: Post) -> None:
    """Half of the receivers never answer or fail, more of them than there are slots."""
    async with AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(receiving()) for _ in range(8)]
        for index, receiver in enumerate(receivers[:4]):
            receiver.behaviours["/hook"] = lambda _, index=index: "hang" if index % 2 else BAD  # type: ignore[misc]
        for index, receiver in enumerate(receivers):
            for job in range(2):
                await post.owe(f"r{index}-{job}", receiver.url("/hook"))
        good = [f"r{index}-{job}" for index in range(4, 8) for job in range(2)]
        limits = {"concurrency": 4, "timeout_s": 0.5, "backoff_s": 600, "backoff_max_s": 600, "max_attempts": 99}
        async with post.carrying(*receivers, **limits):
            parcels = await post.until(settled(*good))
        assert all(parcels[job].state is ParcelState.DELIVERED for job in good)
        assert all(parcel.state is not ParcelState.DELIVERED for job, parcel in parcels.items() if job not in good)


async def test_one_receivers_flood_hides_nobody(post: Post, receiver: Receiver) -> None:
    """A slow receiver holds its own sends only, however many it is owed."""
    receiver.behaviours["/slow"] = lambda _: "hang"
    for job in range(6):
        await post.owe(f"slow{job}", receiver.url("/slow"))
    async with receiving() as other, post.carrying(receiver, other, concurrency=4):
        await receiver.until("/slow", 1)
        await post.owe("good", other.url("/hook"))
        parcels = await post.until(settled("good"))
        assert len(receiver.at("/slow")) == 1
        assert sum(parcel.state is ParcelState.SENDING for parcel in parcels.values()) == 1


async def test_what_a_closed_carrier_was_sending_is_sent_by_the_next(post: Post, receiver: Receiver) -> None:
    receiver.behaviours["/hook"] = lambda received: "hang" if received.nth == 1 else GOOD
    await post.owe("j1", receiver.url("/hook"))
    async with post.carrying(receiver, lease_s=600):
        await receiver.until("/hook", 1)
    async with post.carrying(receiver):
        await post.until(settled("j1"))
    assert len({one.headers["webhook-id"] for one in receiver.seen}) == 1


async def test_the_file_is_put_before_the_webhook(post: Post, receiver: Receiver) -> None:
    data = bytes(range(256)) * 10_000  # more than one piece
    stored = await post.artifacts.put_bytes("jobs/j1/outputs/v.mp4", data)
    delivery = Delivery(webhook_url=receiver.url("/hook"), upload_url=receiver.url("/put?sig=abc"))
    receiver.behaviours["/put"] = lambda received: GOOD if received.nth == 2 else BAD
    await post.play.create(request=request(delivery=delivery))
    await post.finish("j1", *stored)
    async with post.carrying(receiver):
        await receiver.until("/hook", 1)
    assert [(one.method, one.path) for one in receiver.seen] == [("PUT", "/put"), ("PUT", "/put"), ("POST", "/hook")]
    put = receiver.at("/put")[1]
    assert put.body == data
    assert put.headers["content-length"] == str(len(data))
    assert put.headers["content-type"] == "video/mp4"
    assert "transfer-encoding" not in put.headers


async def test_a_file_that_is_gone_is_a_dead_letter_and_the_webhook_follows(post: Post, receiver: Receiver) -> None:
    gone = post.artifacts.uri("jobs/j1/outputs/v.mp4")
    delivery = Delivery(webhook_url=receiver.url("/hook"), upload_url=receiver.url("/put"))
    await post.play.create(request=request(delivery=delivery))
    await post.finish("j1", gone)
    async with post.carrying(receiver):
        await receiver.until("/hook", 1)
    assert not receiver.at("/put")
    (letter,) = (await post.store.parcels(TENANT, states=[ParcelState.DEAD])).parcels
    assert letter.last_error == "The file does not exist (any more)."


async def test_what_breaks_by_our_fault_is_given_up_in_the_end(
    post: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise KeyError("no such field")

    monkeypatch.setattr("deployments.carrier.body", broken)
    await post.owe("j1", receiver.url("/hook"))
    async with post.carrying(receiver, lease_s=0.05):
        parcels = await post.until(settled("j1"))
    assert parcels["j1"].state is ParcelState.DEAD
    assert "delivery broke" in caplog.text
    assert not receiver.seen
