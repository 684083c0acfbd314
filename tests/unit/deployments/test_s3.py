"""What only an object store can do or go wrong in, over HTTP against a real server of its protocol."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from cluster.errors import ConfigError, Damaged, NotFound, Unavailable
from deployments.artifacts import ArtifactStore
from tests.s3 import S3

Store = tuple[str, ArtifactStore]
MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def _empty(on_s3: ArtifactStore) -> None:
    """Each test begins with an empty bucket."""


async def test_objects_are_where_the_uri_says_and_nothing_else_is(s3: S3, s3_store: Store) -> None:
    bucket, store = s3_store
    stored = await store.put_bytes("jobs/a/inputs/0.png", b"data")
    assert stored.uri == f"s3://{bucket}/some/prefix/jobs/a/inputs/0.png"
    await store.put_pieces("jobs/a/work/large", [bytes(9 * MEGABYTE)] * 3)
    await store.put_bytes("jobs/ab/work/x", b"")
    await store.delete_tree("jobs/a/work")
    assert s3.keys(bucket) == [f"some/prefix/jobs/{key}" for key in ("a/inputs/0.png", "ab/work/x")]
    await store.delete_tree("jobs/a")
    await store.delete_tree("jobs/ab/work/x")
    assert s3.keys(bucket) == []  # no empty "folders" either


async def test_more_objects_than_one_request_deletes(s3: S3, s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, store = s3_store
    monkeypatch.setattr("deployments.s3.DELETE_BATCH", 4)
    for index in range(9):
        s3.client.put_object(Bucket=bucket, Key=f"some/prefix/jobs/a/outputs/preview/{index}.m4s", Body=b"")
    await store.delete_tree("jobs/a")
    assert s3.keys(bucket) == []


async def test_a_large_file_is_invisible_until_it_is_whole(s3: S3, s3_store: Store) -> None:
    bucket, store = s3_store
    seen: list[list[str]] = []

    def pieces() -> Any:
        for _ in range(4):
            yield bytes(8 * MEGABYTE)
            seen.append(s3.keys(bucket))

    stored = await store.put_pieces("jobs/a/outputs/x", pieces())
    assert seen == [[]] * 4
    assert await store.size(stored.uri) == 32 * MEGABYTE
    assert len(await store.get_bytes(stored.uri, stored.sha256)) == 32 * MEGABYTE
    assert s3.uploads(bucket) == []


async def test_uploads_of_killed_writers_are_ended(s3: S3, s3_store: Store) -> None:
    bucket, store = s3_store
    for key in ("some/prefix/jobs/a/outputs/x", "somebody/else"):
        s3.client.create_multipart_upload(Bucket=bucket, Key=key)
    assert await store.sweep_temp() == 1
    assert s3.uploads(bucket) == ["somebody/else"]


async def test_damaged_and_missing_objects(s3: S3, s3_store: Store) -> None:
    bucket, store = s3_store
    stored = await store.put_bytes("jobs/a/work/x", b"data")
    s3.damage(bucket, "some/prefix/jobs/a/work/x")
    with pytest.raises(Damaged):
        await store.get_bytes(stored.uri, stored.sha256)
    await store.delete_tree("jobs/a/work/x")
    with pytest.raises(NotFound):
        await store.get_bytes(stored.uri, stored.sha256)


async def test_an_outage_is_said_and_passes(s3: S3, s3_store: Store) -> None:
    _, store = s3_store
    stored = await store.put_bytes("jobs/a/work/x", b"data")
    with s3.away():
        waits = [
            store.put_bytes("jobs/a/work/y", b"data"),
            store.put_pieces("jobs/a/work/y", [bytes(9 * MEGABYTE)] * 3),
            store.get_bytes(stored.uri),
            store.size(stored.uri),
            store.keys("jobs"),
            store.children("jobs"),
            store.copy(stored.uri, "jobs/a/work/z", sha256=stored.sha256),
            store.delete_tree("jobs/a"),
            store.sweep_temp(),
        ]
        for error in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(error, Unavailable), error
            assert re.fullmatch(r"The artifact store cannot \w+: \w+\.", error.message), error.message
    assert await store.keys("jobs") == ["jobs/a/work/x"]
    assert await store.get_bytes(stored.uri, stored.sha256) == b"data"


async def test_a_signed_url_opens_one_object_for_get_alone(s3: S3, s3_store: Store) -> None:
    bucket, through = s3_store
    stored = await through.put_bytes("jobs/a/outputs/1.mp4", b"0123456789")
    assert await through.signed_url(stored.uri, media_type="video/mp4") is None  # artifacts.redirect: false
    store = ArtifactStore(f"s3://{bucket}/some/prefix", s3.options(redirect_s=77))
    disposition = 'attachment; filename="video_1.mp4"'
    url = await store.signed_url(stored.uri, media_type="video/mp4", disposition=disposition)
    assert url is not None
    query = httpx.URL(url).params
    assert query["X-Amz-Expires"] == "77" and query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert "test-secret" not in url
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url, headers={"range": "bytes=2-4"})
        assert (answer.status_code, answer.content) == (206, b"234")
        assert answer.headers["content-type"] == "video/mp4"
        assert answer.headers["content-disposition"] == disposition


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("s3://", "must look like s3://bucket/prefix"),
        ("s3://UPPER", "must look like"),
        ("s3://bucket/../x", "must look like"),
        ("s3://key:secret@bucket/x", "must hold no credentials"),
        ("s3://bucket/x?endpoint_override=evil", "must hold no credentials and no options"),
    ],
)
def test_bad_roots(root: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        ArtifactStore(root)
    assert "secret" not in str(caught.value)


def test_google_cloud_storage_is_made_from_the_config() -> None:
    store = ArtifactStore("gs://bucket/some/prefix")
    assert store.uri("jobs/a/x") == "gs://bucket/some/prefix/jobs/a/x"
    assert store.local_path(store.uri("jobs/a/x")) is None


async def test_the_check_at_start(s3: S3, s3_store: Store) -> None:
    bucket, store = s3_store
    await store.check()
    assert s3.keys(bucket) == []
    with pytest.raises(ConfigError, match=r"artifacts\.root: s3://no-such-bucket .* NO_SUCH_BUCKET"):
        await ArtifactStore("s3://no-such-bucket", s3.options()).check()
    with s3.away(), pytest.raises(ConfigError, match=r"NETWORK_CONNECTION.* endpoint and region"):
        await store.check()
