"""The receiver keeps what came and whether it can be believed, and fails as often as it is told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from standardwebhooks import Webhook

from loadtest.chaos.receiver import Receiver

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = json.dumps({"type": "video.completed", "data": {"id": "video_1"}})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(fail_share=0.0, secrets={0: SECRET, 1: SECRET[:-4] + "AAAA"}) as receiver:
        yield receiver


def post(url: str, body: str = BODY) -> int:
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", now, BODY),
    }
    return httpx.post(url, content=body, headers=headers, trust_env=False).status_code


def test_a_signed_webhook_is_kept(receiver: Receiver) -> None:
    assert post(receiver.url(0, 7)) == 204
    (receipt,) = receiver.receipts
    assert (receipt.tenant, receipt.index, receipt.delivery) == (0, 7, "msg_1")
    assert (receipt.video, receipt.kind, receipt.taken, receipt.flaw) == ("video_1", "video.completed", True, None)


@pytest.mark.parametrize(("tenant", "body"), [(1, BODY), (0, BODY.replace("video_1", "video_2"))])
def test_another_secret_or_body_does_not_verify(receiver: Receiver, tenant: int, body: str) -> None:
    post(receiver.url(tenant, 7), body)
    assert receiver.receipts[0].flaw is not None


def test_it_fails_as_often_as_it_is_told_to() -> None:
    with Receiver(fail_share=0.5, secrets={0: SECRET}) as receiver:
        codes = [post(receiver.url(0, 1)) for _ in range(40)]
    assert set(codes) == {204, 500}
    assert [receipt.taken for receipt in receiver.receipts] == [code == 204 for code in codes]
