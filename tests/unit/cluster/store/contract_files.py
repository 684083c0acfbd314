"""The contract suite: uploaded files, who sees them and for how long."""

from __future__ import annotations

import pytest

from cluster.errors import Conflict, NotFound
from cluster.files import FileInfo, NewFile
from cluster.store.base import JobStore


def new(name: str, keep_s: float = 60.0, purpose: str = "vision") -> NewFile:
    info = FileInfo("video", "video/mp4", 64, 48, 1.5)
    return NewFile(name, f"{name}.mp4", purpose, f"file:///files/{name}", 10, "abc", info, keep_s)


class FileContract:
    """Files belong to their tenant, until they are deleted or expire."""

    async def test_a_file_is_read_as_it_was_written(self, store: JobStore) -> None:
        written = await store.create_file("acme", new("f1"))
        assert await store.get_file("f1", "acme") == written
        assert (written.info, written.nbytes, written.tenant_id) == (new("f1").info, 10, "acme")
        assert (written.expires_at - written.created_at).total_seconds() == 60
        with pytest.raises(Conflict):
            await store.create_file("other", new("f1"))

    async def test_pages(self, store: JobStore) -> None:
        for name in ("f1", "f2", "f3", "f4"):
            await store.create_file("acme", new(name, purpose="odd" if name in ("f1", "f3") else "even"))
        first = await store.list_files("acme", limit=2)
        assert ([file.id for file in first.files], first.has_more) == (["f4", "f3"], True)
        await store.delete_file("f3", "acme")
        await store.swept_file("f3")
        rest = await store.list_files("acme", after="f3", limit=2)
        assert ([file.id for file in rest.files], rest.has_more) == (["f2", "f1"], False)
        odd = await store.list_files("acme", newest_first=False, purpose="odd")
        assert [file.id for file in odd.files] == ["f1"]
        with pytest.raises(NotFound):
            await store.list_files("acme", after="f9")

    async def test_other_tenants_see_nothing(self, store: JobStore) -> None:
        await store.create_file("acme", new("f1"))
        assert (await store.list_files("other")).files == []
        with pytest.raises(NotFound):
            await store.get_file("f1", "other")
        with pytest.raises(NotFound):
            await store.delete_file("f1", "other")
        with pytest.raises(NotFound):
            await store.list_files("other", after="f1")
        assert (await store.get_file("f1", "acme")).id == "f1"

    async def test_what_is_gone_is_swept_once(self, store: JobStore) -> None:
        await store.create_file("acme", new("kept"))
        await store.create_file("acme", new("deleted"))
        await store.create_file("acme", new("expired", keep_s=0.0))
        assert await store.sweepable_files() == ["expired"]
        await store.delete_file("deleted", "acme")
        for gone in ("deleted", "expired"):
            with pytest.raises(NotFound):
                await store.get_file(gone, "acme")
            with pytest.raises(NotFound):
                await store.delete_file(gone, "acme")
        assert [file.id for file in (await store.list_files("acme")).files] == ["kept"]
        assert set(await store.sweepable_files()) == {"deleted", "expired"}
        assert len(await store.sweepable_files(limit=1)) == 1
        await store.swept_file("expired")
        await store.swept_file("expired")
        assert await store.sweepable_files() == ["deleted"]
        assert await store.unknown_files(["deleted", "nobody", "kept", "expired"]) == ["nobody"]
        assert await store.unknown_files([]) == []
