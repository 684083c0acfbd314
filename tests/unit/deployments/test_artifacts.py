import asyncio
import hashlib
import math
import os
import resource

import pytest

from cluster.errors import ConfigError, Damaged, NotFound, Unavailable
from deployments import durable
from deployments.artifacts import ArtifactStore, job_key, job_prefix


@pytest.fixture(params=["folder", "file", "object store", "s3"])
def store(request, tmp_path):
    """The same contract on a folder with an odd name, a file URI, a file system that is not local, and S3."""
    if request.param == "s3":
        return request.getfixturevalue("on_s3")
    roots = {
        "folder": str(tmp_path / "my files"),
        "file": (tmp_path / "b").as_uri(),
        "object store": "mock:///bucket/x",
    }
    return ArtifactStore(roots[request.param])


@pytest.fixture
def local(tmp_path):
    return ArtifactStore(str(tmp_path / "root"))


def test_layout():
    assert job_key("video_1", "inputs", "image-0") == "jobs/video_1/inputs/image-0"
    assert job_prefix("video_1", "work") == "jobs/video_1/work"
    assert job_prefix("video_1") == "jobs/video_1"


async def test_put_and_get(store):
    stored = await store.put_bytes("jobs/a/inputs/x.png", b"data")
    assert stored.nbytes == 4 and stored.sha256 == hashlib.sha256(b"data").hexdigest()
    assert stored.uri == store.uri("jobs/a/inputs/x.png")
    assert await store.get_bytes(stored.uri) == b"data"
    assert await store.size(stored.uri) == 4
    assert await store.exists(stored.uri)


async def test_put_file(store, tmp_path):
    data = os.urandom(3 * 2**20 + 17)
    (tmp_path / "source").write_bytes(data)
    uri, nbytes, sha256 = await store.put_file("jobs/a/outputs/out.mp4", tmp_path / "source")
    assert (nbytes, sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert await store.get_bytes(uri) == data
    with pytest.raises(FileNotFoundError):
        await store.put_file("jobs/a/outputs/x", tmp_path / "missing")
    assert not await store.exists(store.uri("jobs/a/outputs/x"))


async def test_empty_file(store):
    uri = (await store.put_bytes("jobs/a/work/empty", b"")).uri
    assert await store.get_bytes(uri) == b"" and await store.size(uri) == 0 and await store.exists(uri)


async def test_put_replaces(store):
    await store.put_bytes("jobs/a/work/x", b"a long first version")
    uri = (await store.put_bytes("jobs/a/work/x", b"second")).uri
    assert await store.get_bytes(uri) == b"second"


async def test_parts_of_a_file(store):
    uri, _, _ = await store.put_bytes("jobs/a/outputs/x", bytes(range(200)))
    with await store.open_input(uri) as file:
        assert file.seekable()
        file.seek(150)
        assert file.read(3) == bytes([150, 151, 152])
        file.seek(0)
        assert file.read() == bytes(range(200))


async def test_missing_files(store):
    uri = store.uri("jobs/a/work/none")
    assert not await store.exists(uri)
    for read in (store.get_bytes, store.open_input, store.size):
        with pytest.raises(NotFound, match="does not exist"):
            await read(uri)
    await store.put_bytes("jobs/a/work/x", b"")
    assert not await store.exists(store.uri("jobs/a/work"))
    with pytest.raises(NotFound):
        await store.size(store.uri("jobs/a/work"))


async def test_delete_tree(store):
    kept = [(await store.put_bytes(key, b"1")).uri for key in ("jobs/a/outputs/x", "jobs/a/work2/x", "jobs/ab/work/x")]
    gone = [(await store.put_bytes(key, b"1")).uri for key in ("jobs/a/work/x", "jobs/a/work/deep/er/y")]
    await store.delete_tree("jobs/a/work")
    assert [await store.exists(uri) for uri in kept] == [True, True, True]
    assert [await store.exists(uri) for uri in gone] == [False, False]
    await store.delete_tree("jobs/a/work")
    await store.delete_tree("jobs/never")
    await store.delete_tree("jobs/a/outputs/x")
    assert not await store.exists(kept[0]) and await store.exists(kept[1])


KEYS = ["", "/", "/etc/passwd", "..", "../x", "jobs/../../x", "jobs/./x", "jobs//x", "jobs/x/", ".hidden",
        "jobs/.tmp-1", "jobs/a b", "jobs/a\0", "jobs/a\n", "jobs/a%2e", "jobs/ü", "jobs/a\\b", "x" * 201]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
async def test_keys_cannot_leave_the_root(local, key):
    with pytest.raises(ValueError, match="artifact key"):
        local.uri(key)
    with pytest.raises(ValueError, match="artifact key"):
        await local.delete_tree(key)
    with pytest.raises(ValueError, match="artifact key"):
        await local.put_bytes(key, b"")


async def test_uris_of_other_places_are_not_read(store, tmp_path):
    (tmp_path / "secret").write_text("secret")
    root = store.uri("jobs").removesuffix("/jobs")
    for uri in ("", "/etc/passwd", "file:///etc/passwd", f"{root}/../secret", f"{root}/jobs/../../secret", f"{root}/",
                f"{root}x/jobs", "s3://other/x"):  # fmt: skip
        for read in (store.get_bytes, store.open_input, store.size, store.exists):
            with pytest.raises(NotFound):
                await read(uri)


def test_local_path_of_other_places(local):
    with pytest.raises(NotFound, match="outside"):
        local.local_path("file:///etc/passwd")


async def test_local_path(local, tmp_path):
    uri = (await local.put_bytes("jobs/a/work/x", b"data")).uri
    assert local.local_path(uri) == tmp_path / "root" / "jobs/a/work/x"
    assert uri.startswith("file:///")
    remote = ArtifactStore("mock:///bucket")
    assert remote.local_path((await remote.put_bytes("jobs/a/x", b"")).uri) is None


async def test_a_relative_root_is_fixed_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = ArtifactStore("artifacts")
    uri = (await store.put_bytes("jobs/a/x", b"data")).uri
    monkeypatch.chdir("/")
    assert await store.get_bytes(uri) == b"data"


def test_unknown_file_system():
    with pytest.raises(ConfigError, match=r"artifacts\.root"):
        ArtifactStore("nope://bucket")


async def test_storage_errors_are_unavailable_and_name_no_path(local, tmp_path):
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(Unavailable) as caught:
        await local.put_bytes("jobs/a/x", b"data")
    assert "cannot write" in caught.value.message and str(tmp_path) not in caught.value.message
    assert caught.value.retry_after_s > 0


async def test_full_disk(local):
    """The kernel takes so many bytes of a file and no more, as a full disk does."""
    await local.put_bytes("jobs/a/x", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(Unavailable, match="cannot write: File too large"):
            await local.put_pieces("jobs/a/x", [bytes(2**19)] * 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await local.get_bytes(local.uri("jobs/a/x")) == b"old"
    assert os.listdir(local.local_path(local.uri("jobs/a"))) == ["x"]


async def test_reading_a_folder_is_unavailable_or_missing(local):
    await local.put_bytes("jobs/a/x", b"")
    with pytest.raises((Unavailable, NotFound)):
        await local.get_bytes(local.uri("jobs/a"))


async def test_sweep_temp(local):
    await local.put_bytes("jobs/a/x", b"data")
    leftover = local.local_path(local.uri("jobs/a")) / f"{durable.TEMP_PREFIX}0"
    leftover.write_bytes(b"half")
    assert await local.sweep_temp() == 0  # young: its writer may not have locked it yet
    os.utime(leftover, (1, 1))
    assert await local.sweep_temp() == 1
    assert not leftover.exists() and await local.exists(local.uri("jobs/a/x"))
    assert await ArtifactStore("mock:///bucket").sweep_temp() == 0


async def test_sweep_of_a_store_that_does_not_exist_yet(local):
    assert await local.sweep_temp() == 0


async def test_writers_of_the_same_key_do_not_mix(local):
    versions = [bytes([n]) * 100_000 for n in range(8)]
    await asyncio.gather(*(local.put_bytes("jobs/a/x", data) for data in versions))
    assert await local.get_bytes(local.uri("jobs/a/x")) in versions
    assert os.listdir(local.local_path(local.uri("jobs/a"))) == ["x"]


async def test_keys_of_a_folder(store):
    for key in ("jobs/a/outputs/1.mp4", "jobs/a/outputs/preview/0-1/0.m4s", "jobs/a/work/x", "jobs/ab/outputs/y"):
        await store.put_bytes(key, key.encode())
    assert await store.keys("jobs/a/outputs") == ["jobs/a/outputs/1.mp4", "jobs/a/outputs/preview/0-1/0.m4s"]
    assert await store.keys("jobs/none") == []
    with pytest.raises(ValueError, match="not an artifact key"):
        await store.keys("jobs/../jobs")


async def test_temporary_files_are_no_keys(local, tmp_path):
    await local.put_bytes("jobs/a/outputs/x", b"x")
    (tmp_path / "root/jobs/a/outputs" / f"{durable.TEMP_PREFIX}1").write_bytes(b"half")
    assert await local.keys("jobs") == ["jobs/a/outputs/x"]


async def test_pieces_are_read_when_asked_for(store):
    files = [await store.put_bytes(f"jobs/a/outputs/{index}", bytes([index])) for index in range(3)]
    pieces = store.pieces(files)
    assert next(pieces) == b"\0"
    await store.delete_tree("jobs/a/outputs/2")
    assert next(pieces) == b"\1"
    with pytest.raises(NotFound):
        next(pieces)


async def test_a_file_that_is_not_what_was_written(store):
    right, wrong = [await store.put_bytes(f"jobs/a/outputs/{name}", name.encode()) for name in ("one", "two")]
    assert await store.get_bytes(right.uri, right.sha256) == b"one"
    with pytest.raises(Damaged, match="does not hold the bytes that were written"):
        await store.get_bytes(right.uri, wrong.sha256)
    with pytest.raises(Damaged):
        list(store.pieces([right, wrong._replace(sha256=right.sha256)]))


async def test_a_copy_is_independent(store):
    data = os.urandom(3 * 2**20)
    source = await store.put_bytes("files/file-1/data", data)
    copy = await store.copy(source.uri, "jobs/a/inputs/0.png", sha256=source.sha256)
    assert copy == (store.uri("jobs/a/inputs/0.png"), len(data), source.sha256)
    await store.delete_tree("files/file-1")
    assert await store.get_bytes(copy.uri, copy.sha256) == data
    with pytest.raises(NotFound):
        await store.copy(source.uri, "jobs/a/inputs/1.png", sha256=source.sha256)
    assert await store.keys("jobs") == ["jobs/a/inputs/0.png"]


async def test_a_damaged_local_source_is_not_copied(local):
    source = await local.put_bytes("files/file-1/data", b"right")
    local.local_path(source.uri).write_bytes(b"wrong")
    with pytest.raises(Damaged):
        await local.copy(source.uri, "jobs/a/inputs/0.png", sha256=source.sha256)
    assert await local.keys("jobs") == []


async def test_children_and_their_age(store):
    await store.put_bytes("jobs/a/work/x", b"1")
    await store.put_bytes("jobs/b/inputs/x", b"1")
    await store.put_bytes("jobs/loose", b"1")
    assert sorted(await store.children("jobs")) == ["a", "b"]
    assert await store.children("files") == []
    assert -60 < await store.age_s("jobs/a") < 3600  # clocks of two machines
    assert await store.age_s("jobs/none") == math.inf


async def test_a_source_that_fails_leaves_nothing(store):
    def broken(nbytes):
        yield bytes(nbytes)
        raise OSError(5, "Input/output error")

    await store.put_bytes("jobs/a/outputs/old", b"old")
    for nbytes in (10, 17 * 2**20):  # before and after the first request
        for name in ("old", "new"):
            with pytest.raises(Unavailable):
                await store.put_pieces(f"jobs/a/outputs/{name}", broken(nbytes))
        if "mock" in store.uri("x"):  # no uploads that could be aborted
            break
    assert await store.keys("jobs") == ["jobs/a/outputs/old"]
    assert await store.get_bytes(store.uri("jobs/a/outputs/old")) == b"old"


async def test_the_probe_leaves_nothing(store, tmp_path):
    await store.check()
    assert await store.keys("jobs") == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
