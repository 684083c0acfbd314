"""What a tenant may ask for at the door, see of its deliveries, and do about them."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.deliveries import Outcome, Parcel, ParcelState
from cluster.records import Delivery, Failure
from tests.unit.cluster.makers import request
from tests.unit.cluster.store.play import R2V
from tests.unit.deployments.api.conftest import Edge
from tests.unit.deployments.api.test_videos import body

PUBLIC = "https://93.184.215.14/hook?sig=secret"
DEAD = Outcome(ParcelState.DEAD, 500, "answered with status 500")


async def owe(edge: Edge, job_id: str, tenant: str = "default") -> None:
    leadership = await edge.store.lead("s1", 600.0)
    assert leadership is not None
    await edge.store.create_job(job_id, tenant, request(delivery=Delivery(webhook_url=PUBLIC)), R2V)
    await edge.store.fail_job(leadership, job_id, Failure("broken", "It broke."))


async def claim(edge: Edge) -> list[Parcel]:
    return list(await edge.store.claim_parcels(limit=9, per_host=9, lease_s=60, room={}))


async def test_what_was_asked_for_is_kept(edge: Edge) -> None:
    wishes = {"webhook_url": PUBLIC, "upload_url": PUBLIC, "ttl": 90, "deadline_s": 30}
    response = await edge.client.post("/v1/videos", json=body() | wishes)
    assert response.status_code == 200, response.text
    job = await edge.store.get_job(response.json()["id"], "default")
    assert job.request.deadline_s == 30
    assert job.request.delivery == Delivery(webhook_url=PUBLIC, upload_url=PUBLIC, ttl_s=90)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("webhook_url", "http://127.0.0.1:9/hook"),
        ("webhook_url", "http://localhost/hook"),
        ("webhook_url", "ftp://93.184.215.14/"),
        ("webhook_url", "hello"),
        ("webhook_url", "https://user:pass@93.184.215.14/"),
        ("webhook_url", "https://93.184.215.14/" + "x" * 9000),
        ("upload_url", "http://169.254.169.254/latest/meta-data"),
        ("ttl", 59),
        ("deadline_s", 0),
    ],
)
async def test_wrong_wishes_are_refused_at_the_door(edge: Edge, field: str, value: Any) -> None:
    response = await edge.client.post("/v1/videos", json=body() | {field: value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field
    assert not edge.files()


async def test_dead_letters_are_listed_and_sent_again_by_their_owner(edge: Edge) -> None:
    await owe(edge, "j1")
    await owe(edge, "j2")
    await owe(edge, "foreign", "other")
    for parcel in await claim(edge):
        await edge.store.settle_parcel(parcel, DEAD)
    page = (await edge.client.get("/v1/deliveries", params={"state": "dead", "limit": 1})).json()
    (letter,) = page["data"]
    assert page["has_more"]
    assert (letter["video_id"], letter["kind"], letter["state"]) == ("j2", "webhook", "dead")
    assert (letter["last_status"], letter["last_error"], letter["attempts"]) == (500, DEAD.error, 1)
    assert letter["url"] == "https://93.184.215.14/hook"
    rest = (await edge.client.get("/v1/deliveries", params={"after": page["last_id"]})).json()
    assert [item["video_id"] for item in rest["data"]] == ["j1"]
    both = (await edge.client.get("/v1/deliveries?state=dead&state=pending&video_id=j1")).json()
    assert [item["video_id"] for item in both["data"]] == ["j1"]

    answer = await edge.client.post(f"/v1/deliveries/{letter['id']}/resend")
    assert (answer.status_code, answer.json()["state"], answer.json()["id"]) == (200, "pending", letter["id"])
    assert edge.wakes
    assert (await edge.client.post(f"/v1/deliveries/{letter['id']}/resend")).status_code == 409
    (foreign,) = (await edge.store.parcels("other")).parcels
    assert (await edge.client.post(f"/v1/deliveries/{foreign.id}/resend")).status_code == 404
    assert (await edge.client.get("/v1/deliveries?state=lost")).status_code == 400


async def test_the_secret_is_shown_and_rotated(edge: Edge) -> None:
    first = (await edge.client.get("/v1/webhooks/secret")).json()
    assert first["secret"].startswith("whsec_")
    assert (await edge.client.get("/v1/webhooks/secret")).json() == first
    second = (await edge.client.post("/v1/webhooks/secret/rotate")).json()
    assert second["previous"] == [first["secret"]]
    assert second["secret"] != first["secret"]


async def test_the_backlog_is_a_metric(edge: Edge) -> None:
    await owe(edge, "j1")
    await owe(edge, "j2")
    (parcel, _) = await claim(edge)
    await edge.store.settle_parcel(parcel, DEAD)
    text = (await edge.client.get("/metrics")).text
    assert 'skyreels_deliveries{kind="webhook",state="dead"} 1.0' in text
    assert 'skyreels_deliveries{kind="webhook",state="sending"} 1.0' in text
    assert 'skyreels_deliveries{kind="upload",state="pending"} 0.0' in text
    assert "skyreels_delivery_oldest_due_seconds 0.0" in text
