"""Files and the rows that name them: callers that leave, and stores that do not say what became of a commit."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cluster.canonical import Draft
from cluster.errors import LimitExceeded, Unavailable
from cluster.store.base import JobStore
from deployments.api.intake import Intake
from deployments.api.reception import Uploads
from deployments.api.sources import Reference, UploadSource
from deployments.fetch import Fetcher
from tests.unit.deployments.api.conftest import Edge
from tests.unit.deployments.api.test_videos import png

Then = Callable[[], Awaitable[None]]


class Watched:
    """The edge's store; `then` follows every row of a job or a file that was written."""

    def __init__(self, store: JobStore, then: Then, *, refused: bool = False) -> None:
        self._store = store
        self._then = then
        self._refused = refused

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in {"create_job", "create_file"}:
            return found

        async def written(*args: Any, **kwargs: Any) -> Any:
            row = None if self._refused else await found(*args, **kwargs)
            await self._then()
            return row

        return written


class Door:
    """Where a caller may leave: `inside` once the row is written, which goes no further until `open`."""

    def __init__(self) -> None:
        self.inside = asyncio.Event()
        self.open = asyncio.Event()

    async def pass_through(self) -> None:
        self.inside.set()
        await self.open.wait()


async def video(edge: Edge, store: Any) -> None:
    intake = Intake(store, edge.artifacts, Fetcher(edge.config.media), edge.config)
    model = edge.config.registry.find("skyreels-v3-r2v")
    await intake.accept(model, Draft("A ball", 1), [Reference(UploadSource(png()))], "default")


async def upload(edge: Edge, store: Any) -> None:
    uploads, data = Uploads(store, edge.artifacts, edge.config), png()
    await uploads.accept(
        io.BytesIO(data), len(data), filename="a.png", purpose="user_data", keep_s=None, tenant="default"
    )


async def rows(edge: Edge) -> int:
    page, files = await edge.client.get("/v1/videos"), await edge.client.get("/v1/files")
    return len(page.json()["data"]) + len(files.json()["data"])


STORED = pytest.mark.parametrize("store_it", [video, upload])


@STORED
async def test_a_caller_that_leaves_in_the_commit_takes_no_file_along(edge: Edge, store_it: Any) -> None:
    door = Door()
    caller = asyncio.create_task(store_it(edge, Watched(edge.store, door.pass_through)))
    await door.inside.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert caller.cancelled()
    door.open.set()
    await asyncio.sleep(0)
    assert await rows(edge) == 1
    assert len(edge.files()) == 1


@STORED
async def test_a_caller_that_leaves_before_a_refusal_leaves_nothing(edge: Edge, store_it: Any) -> None:
    door, done = Door(), asyncio.Event()

    async def refuse() -> None:
        await door.pass_through()
        done.set()
        raise LimitExceeded("enough", retry_after_s=1)

    caller = asyncio.create_task(store_it(edge, Watched(edge.store, refuse, refused=True)))
    await door.inside.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert len(edge.files()) == 1
    door.open.set()
    await done.wait()
    for _ in range(500):
        if not edge.files():
            break
        await asyncio.sleep(0.01)
    assert edge.files() == []
    assert await rows(edge) == 0


@STORED
async def test_what_may_have_been_committed_keeps_its_file(edge: Edge, store_it: Any) -> None:
    async def cut_off() -> None:
        raise Unavailable("The connection was lost.", retry_after_s=1)

    with pytest.raises(Unavailable):
        await store_it(edge, Watched(edge.store, cut_off))
    assert await rows(edge) == 1
    assert len(edge.files()) == 1
