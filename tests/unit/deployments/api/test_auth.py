"""Keys at the edge: who gets in, and that nobody sees what is another tenant's."""

from __future__ import annotations

import logging
import re
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.errors import Unauthenticated
from cluster.records import SegmentFile
from cluster.tenancy import digest, new_secret
from deployments.api.auth import Identity, Keys
from tests.unit.cluster.store.play import Play
from tests.unit.deployments.api.conftest import Edge, open_edge
from tests.unit.deployments.api.test_videos import body

OPEN = {"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"}


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Edge]:
    async with open_edge(tmp_path, more="auth: keys\n") as edge:
        yield edge


async def grant(edge: Edge, tenant: str, *, admin: bool = False) -> dict[str, str]:
    """A new key as the header that carries it."""
    secret = new_secret()
    await edge.store.create_key(tenant, "test", digest(secret), admin=admin)
    return {"Authorization": f"Bearer {secret}"}


async def test_every_route_but_health_and_docs_needs_a_key(locked: Edge) -> None:
    paths = (await locked.client.get("/openapi.json")).json()["paths"]
    asked = [(method, path) for path, methods in paths.items() for method in methods if path not in OPEN]
    assert len(asked) > 8
    for method, path in asked:
        url = re.sub(r"\{\w+\}", "1", path)
        for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": "Basic eDp5"}):
            response = await locked.client.request(method, url, headers=headers)
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"] == "Bearer"


async def test_a_refusal_has_the_shape_that_clients_read(locked: Edge) -> None:
    response = await locked.client.get("/v1/videos")
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert (await locked.client.get("/healthz")).status_code == 200


async def test_a_foreign_video_does_not_exist(locked: Edge) -> None:
    mine, theirs = await grant(locked, "mine"), await grant(locked, "theirs")
    job = (await locked.client.post("/v1/videos", json=body(), headers=mine)).json()["id"]
    leadership = await locked.store.lead("s", 600)
    assert leadership is not None
    stored = await locked.artifacts.put_bytes(f"jobs/{job}/outputs/0.m4s", b"segment")
    segment = SegmentFile(0, stored.uri, stored.uri, 7, 0, 25, 1.0)
    play = Play(locked.store, leadership)
    for name in ("text", "condition", "denoise"):
        await play.finish(name, job)
    await locked.store.add_segment((await play.take("decode", job)).call, segment)
    paths = (await locked.client.get("/openapi.json")).json()["paths"]
    asked = [(method, path) for path, methods in paths.items() for method in methods if "{video_id}" in path]
    assert {path.rpartition("}")[2] for _, path in asked} >= {"", "/cancel", "/content", "/preview"}
    for method, path in asked:
        url = path.format(video_id=job, chunk=0, name="0.m4s")
        sent = {"prompt": "another"} if method == "post" else None
        foreign = await locked.client.request(method, url, headers=theirs, json=sent)
        assert foreign.status_code == 404, (method, path, foreign.text)
        assert "prompt" not in foreign.text
    assert (await locked.client.get("/v1/videos", headers=theirs)).json()["data"] == []
    assert (await locked.client.get("/v1/videos", headers=theirs, params={"after": job})).status_code == 404
    own = await locked.client.get(f"/v1/videos/{job}/preview/0/0.m4s", headers=mine)
    assert (own.status_code, own.content) == (200, b"segment")
    assert (await locked.client.get(f"/v1/videos/{job}", headers=mine)).json()["status"] == "in_progress"


async def test_what_else_another_tenant_owns_does_not_exist_either(locked: Edge) -> None:
    """Predictions and tasks of the other APIs, uploaded files, deliveries."""
    mine, theirs = await grant(locked, "mine"), await grant(locked, "theirs")
    wavespeed = {"prompt": "a", "images": [body()["images"][0]]}
    submitted = await locked.client.post(
        "/api/v3/skywork-ai/skyreels-v3/reference-to-video?webhook=http://1.1.1.1/", json=wavespeed, headers=mine
    )
    prediction = submitted.json()["data"]["id"]
    upload = {"file": ("a.png", b64decode(body()["images"][0].partition(",")[2]), "image/png")}
    stored = await locked.client.post("/v1/files", files=upload, data={"purpose": "vision"}, headers=mine)
    file_id = stored.json()["id"]
    await locked.client.post(f"/v1/videos/{prediction}/cancel", headers=mine)
    (delivery,) = (await locked.client.get("/v1/deliveries", headers=mine)).json()["data"]
    asked = [
        ("GET", f"/api/v3/predictions/{prediction}/result"),
        ("GET", f"/v1/files/{file_id}"),
        ("GET", f"/v1/files/{file_id}/content"),
        ("DELETE", f"/v1/files/{file_id}"),
        ("POST", f"/v1/deliveries/{delivery['id']}/resend"),
    ]
    for method, url in asked:
        assert (await locked.client.request(method, url, headers=theirs)).status_code == 404, url
    refused = await locked.client.post("/v1/videos", json=body(images=[file_id]), headers=theirs)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "images[0]")
    boss = await grant(locked, "ops", admin=True)
    assert len((await locked.client.get("/v1/deliveries", headers=boss)).json()["data"]) == 1
    for listing in ("/v1/files", "/v1/deliveries"):
        assert (await locked.client.get(listing, headers=theirs)).json()["data"] == []
        assert len((await locked.client.get(listing, headers=mine)).json()["data"]) == 1


async def test_status_and_metrics_tell_a_tenant_nothing_of_others(locked: Edge) -> None:
    mine, boss = await grant(locked, "mine"), await grant(locked, "ops", admin=True)
    theirs = await grant(locked, "theirs")
    await locked.client.post("/v1/videos", json=body(), headers=theirs)
    report = (await locked.client.get("/v1/status", headers=mine)).json()
    assert (report["auth"], report["jobs"]["queued"], report["workers"]) == ("keys", 0, [])
    assert not any(report["ready"].values())
    assert (await locked.client.get("/v1/status", headers=theirs)).json()["jobs"]["queued"] == 1
    assert (await locked.client.get("/v1/status", headers=boss)).json()["jobs"]["queued"] == 1
    refused = await locked.client.get("/metrics", headers=mine)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert "skyreels_jobs" in (await locked.client.get("/metrics", headers=boss)).text


async def test_usage_is_ones_own_unless_one_is_admin(locked: Edge) -> None:
    mine, boss = await grant(locked, "mine"), await grant(locked, "ops", admin=True)
    own = (await locked.client.get("/v1/usage", headers=mine)).json()
    assert (own["tenant"], own["charged_usd"], own["stages"]) == ("mine", "0", [])
    assert (await locked.client.get("/v1/usage?tenant=ops", headers=mine)).status_code == 403
    assert (await locked.client.get("/v1/usage?tenant=mine", headers=boss)).json()["tenant"] == "mine"
    assert (await locked.client.get("/v1/usage?since=0001-01-01T00:00:00Z", headers=mine)).status_code == 400


async def test_a_revoked_key_stops_within_the_time_it_is_believed(locked: Edge) -> None:
    now_s = 1000.0
    keys = Keys(locked.store, fresh_s=2.0, clock=lambda: now_s)
    secret = new_secret()
    key = await locked.store.create_key("mine", "test", digest(secret))
    assert await keys.identify(f"bearer {secret}") == Identity("mine", admin=False)
    await locked.store.revoke_key(key.id)
    now_s += 1.9
    assert (await keys.identify(f"Bearer {secret}")).tenant == "mine"
    now_s += 0.2
    with pytest.raises(Unauthenticated, match="revoked"):
        await keys.identify(f"Bearer {secret}")
    assert (await locked.store.list_keys())[0].last_used_at is not None


async def test_no_secret_is_logged(locked: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    header = await grant(locked, "mine")
    await locked.client.get("/v1/videos", headers=header)
    await locked.client.get("/v1/videos", headers={"Authorization": "Bearer sk-mistyped-secret"})
    secret = header["Authorization"].partition(" ")[2]
    assert secret not in caplog.text
    assert "sk-mistyped-secret" not in caplog.text


async def test_without_authentication_everybody_is_the_one_tenant(edge: Edge) -> None:
    job = (await edge.client.post("/v1/videos", json=body())).json()
    assert (await edge.store.get_job(job["id"], edge.config.tenant)).id == job["id"]
    assert (await edge.client.get("/v1/status")).json()["auth"] == "off"
    assert (await edge.client.get("/v1/usage?tenant=any")).status_code == 200
