import dataclasses

import pytest
import torch

from cluster.errors import Damaged, StageError, Unavailable
from deployments.artifacts import ArtifactStore
from deployments.transport import Counters, DurableTransport
from tests.unit.deployments.transport_contract import TransportContract, condition, latents, same, text

LATENTS_NBYTES = latents().video_BCTHW.nbytes
PLENTY = 2**30


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(str(tmp_path))


class TestLocal(TransportContract):
    @pytest.fixture
    def pair(self, store):
        return DurableTransport(store, cache_nbytes=PLENTY), DurableTransport(store, cache_nbytes=PLENTY)


class TestObjectStore(TransportContract):
    @pytest.fixture
    def pair(self):
        store = ArtifactStore("mock:///bucket")
        return DurableTransport(store, cache_nbytes=PLENTY), DurableTransport(store, cache_nbytes=PLENTY)


async def test_by_reference_in_one_process(store):
    transport = DurableTransport(store, cache_nbytes=PLENTY)
    value = latents()
    handle = await transport.put("jobs/a/x", value)
    assert (await transport.get(handle)).tensors()["video_BCTHW"] is value.video_BCTHW
    assert transport.counters.copies.total() == 0
    assert transport.counters.nbytes == {("file", "write"): handle.nbytes, ("memory", "read"): LATENTS_NBYTES}


async def test_staging_counts_as_a_copy(store):
    transport = DurableTransport(store, cache_nbytes=PLENTY)
    value = latents()
    view = dataclasses.replace(value, video_BCTHW=value.video_BCTHW.transpose(3, 4))
    await transport.put("jobs/a/x", view)
    assert transport.counters.copies == {"memory": 1}


async def test_a_view_does_not_keep_its_whole_storage(store):
    transport = DurableTransport(store, cache_nbytes=PLENTY)
    whole = torch.zeros(100, 16, 3, 4, 6)
    handle = await transport.put("jobs/a/x", dataclasses.replace(latents(), video_BCTHW=whole[:1]))
    kept = (await transport.get(handle)).tensors()["video_BCTHW"]
    assert kept.untyped_storage().nbytes() == LATENTS_NBYTES


async def test_memory_is_bounded_and_the_least_used_goes_first(store):
    transport = DurableTransport(store, cache_nbytes=2 * LATENTS_NBYTES)
    handles = [await transport.put(f"jobs/a/{n}", latents(n + 1)) for n in range(2)]
    await transport.get(handles[0])
    handles.append(await transport.put("jobs/a/2", latents(3)))
    hits = transport.counters.gets["memory"]
    await transport.get(handles[0])
    await transport.get(handles[2])
    assert transport.counters.gets["memory"] == hits + 2
    assert same(await transport.get(handles[1]), latents(2))
    assert transport.counters.gets["memory"] == hits + 2
    assert transport.counters.nbytes["file", "read"] == handles[1].nbytes


@pytest.mark.parametrize("limit", [0, LATENTS_NBYTES - 1])
async def test_values_beyond_the_bound_are_not_kept(store, limit):
    transport = DurableTransport(store, cache_nbytes=limit)
    handle = await transport.put("jobs/a/x", latents())
    assert same(await transport.get(handle), latents())
    assert same(await transport.get(handle), latents())
    assert transport.counters.gets == {"file": 2}
    assert transport.counters.nbytes["file", "read"] == 2 * handle.nbytes


async def test_a_second_read_elsewhere_is_a_hit(store):
    handle = await DurableTransport(store, cache_nbytes=0).put("jobs/a/x", text())
    elsewhere = DurableTransport(store, cache_nbytes=PLENTY)
    first = await elsewhere.get(handle)
    assert await elsewhere.get(handle) is first
    assert elsewhere.counters.gets == {"file": 1, "memory": 1}
    assert elsewhere.counters.nbytes["file", "read"] == handle.nbytes


async def test_local_blobs_are_mapped_and_never_written(store):
    handle = await DurableTransport(store, cache_nbytes=0).put("jobs/a/x", latents())
    transport = DurableTransport(store, cache_nbytes=0)
    value = await transport.get(handle)
    assert transport.counters.copies.total() == 0
    path = store.local_path(handle.uri)
    before = path.read_bytes()
    value.tensors()["video_BCTHW"].zero_()  # against the agreement
    assert path.read_bytes() == before
    assert same(await transport.get(handle), latents())


async def test_a_mapped_value_outlives_its_file(store):
    handle = await DurableTransport(store, cache_nbytes=0).put("jobs/a/x", latents())
    transport = DurableTransport(store, cache_nbytes=0)
    value = await transport.get(handle)
    await transport.drop("jobs/a")
    assert same(value, latents())


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 100, None])
async def test_damaged_blobs(store, damage):
    handle = await DurableTransport(store, cache_nbytes=0).put("jobs/a/x", condition())
    path = store.local_path(handle.uri)
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    with pytest.raises(Damaged, match="damaged"):
        await DurableTransport(store, cache_nbytes=0).get(handle)


async def test_handles_of_another_store(store, tmp_path):
    other = ArtifactStore(str(tmp_path / "elsewhere"))
    handle = await DurableTransport(other, cache_nbytes=0).put("jobs/a/x", condition())
    moved = dataclasses.replace(handle, uri="file:///etc/hostname")
    with pytest.raises(StageError, match="gone"):
        await DurableTransport(store, cache_nbytes=0).get(moved)


async def test_a_failed_write_keeps_nothing(tmp_path):
    (tmp_path / "root").write_text("a file where the folder should be")
    transport = DurableTransport(ArtifactStore(str(tmp_path / "root")), cache_nbytes=PLENTY)
    with pytest.raises(Unavailable):
        await transport.put("jobs/a/x", latents())
    assert transport.counters == Counters()


async def test_reading_from_an_object_store_of_files_is_a_copy():
    store = ArtifactStore("mock:///bucket")
    handle = await DurableTransport(store, cache_nbytes=0).put("jobs/a/x", latents())
    transport = DurableTransport(store, cache_nbytes=0)
    await transport.get(handle)
    assert transport.counters.copies == {"file": 1}
