"""The decode stage: segments while the frames come, a file made of them, and nothing left of what was given up."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import av
import pytest
from numpy.typing import NDArray

from cluster.errors import Damaged, StaleEpoch, Unavailable
from cluster.records import Failure, SegmentFile, StageCall, Verdict
from cluster.store.base import JobStore
from deployments.leases import Revoked
from deployments.stages import DecodeStage
from deployments.sweeper import Sweeper
from deployments.telemetry import logger
from tests.unit.cluster.store.play import ROOT, TENANT
from tests.unit.deployments.decoding import Decoding, decode_stage, opened

LOST = Failure("worker_lost", "The worker of this stage died.")
FRAMES = 61
LENGTHS = [24, 24, 13]
NAMES = ("init.mp4", "0.m4s", "1.m4s", "2.m4s", "thumbnail.webp", "spritesheet.jpg")
Hook = Callable[[StageCall, SegmentFile], Awaitable[None]]


class Hooked:
    """A job store at which something happens before a segment is added."""

    def __init__(self, store: JobStore, hook: Hook) -> None:
        self._store = store
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def add_segment(self, call: StageCall, segment: SegmentFile) -> None:
        await self._hook(call, segment)
        await self._store.add_segment(call, segment)


def pictures(data: bytes) -> list[NDArray[Any]]:
    with av.open(io.BytesIO(data), "r", format="mp4") as video:
        return [frame.to_ndarray() for frame in video.decode(video=0)]


def files(decoding: Decoding, job_id: str = "j1") -> set[str]:
    root = decoding.folder / "artifacts"
    return {
        path.relative_to(root / "jobs" / job_id).as_posix()
        for path in (root / "jobs" / job_id).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> DecodeStage:
    return decode_stage(tmp_path_factory.mktemp("checkpoint") / "r2v")


@pytest.fixture
async def decoding(tmp_path: Path, stage: DecodeStage) -> AsyncIterator[Decoding]:
    async with opened(tmp_path, stage) as decoding:
        await decoding.ready(FRAMES)
        yield decoding


async def test_the_file_is_a_stream_copy_of_the_stored_segments(decoding: Decoding) -> None:
    room = await decoding.take()
    artifact = await decoding.run(room)
    segments = await decoding.segments()
    assert [(segment.index, segment.first_frame, segment.frames) for segment in segments] == [
        (0, 0, 24),
        (1, 24, 24),
        (2, 48, 13),
    ]
    assert [segment.duration_s for segment in segments] == [1.0, 1.0, 13 / 24]
    stored = [await decoding.artifacts.get_bytes(segment.uri) for segment in segments]
    assert [len(data) for data in stored] == [segment.nbytes for segment in segments]
    init = await decoding.artifacts.get_bytes(segments[0].init_uri)
    whole = pictures(await decoding.artifacts.get_bytes(artifact.uri))
    assert artifact.frames == len(whole) == FRAMES
    assert all((a == b).all() for a, b in zip(whole, pictures(init + b"".join(stored)), strict=True))
    folder = f"outputs/preview/0-{room.work.call.epoch}"
    assert {name for name in files(decoding) if name.startswith("outputs/preview")} == {
        f"{folder}/{name}" for name in NAMES
    }


async def test_a_segment_is_listed_while_later_frames_are_decoded(decoding: Decoding) -> None:
    steps = []

    async def note(call: StageCall, segment: SegmentFile) -> None:
        steps.append(room.lease.beat.step)

    room = await decoding.take(store=Hooked(decoding.store, note))
    await decoding.run(room)
    assert len(steps) == len(LENGTHS)
    assert steps[0] < steps[1] < room.lease.beat.steps == 16


async def test_an_absent_job_store_delays_the_list_and_not_the_work(decoding: Decoding) -> None:
    refused = []

    async def outage(call: StageCall, segment: SegmentFile) -> None:
        if len(refused) < 4:
            refused.append(room.lease.beat.step)
            raise Unavailable("The job store is away.", retry_after_s=0.01)

    room = await decoding.take(store=Hooked(decoding.store, outage))
    artifact = await decoding.run(room)
    assert refused[0] < refused[1]  # frames were decoded in between
    assert [segment.frames for segment in await decoding.segments()] == LENGTHS
    assert artifact.frames == FRAMES


async def test_a_damaged_segment_never_gets_into_the_file_and_another_attempt_makes_it_new(decoding: Decoding) -> None:
    async def damage(call: StageCall, segment: SegmentFile) -> None:
        if segment.index == 1:
            path = decoding.artifacts.local_path(segment.uri)
            assert path is not None
            path.write_bytes(path.read_bytes()[:-1] + b"?")

    room = await decoding.take(store=Hooked(decoding.store, damage))
    with pytest.raises(Damaged) as caught:
        await decoding.run(room)
    failure = Failure(caught.value.code, caught.value.message)
    await decoding.store.fail(room.work.call, failure, retryable=caught.value.retryable, max_failures=2)
    artifact = await decoding.run(await decoding.take())
    assert artifact.frames == len(pictures(await decoding.artifacts.get_bytes(artifact.uri, artifact.sha256))) == FRAMES


async def test_a_cancelled_stage_stops_within_one_piece_of_frames(decoding: Decoding) -> None:
    cancelled_at = []

    async def cancel(call: StageCall, segment: SegmentFile) -> None:
        cancelled_at.append(room.lease.beat.step)
        room.lease.judge(Verdict.CANCELLED)

    room = await decoding.take(store=Hooked(decoding.store, cancel))
    with pytest.raises(Revoked):
        await decoding.run(room)
    assert room.lease.beat.step <= cancelled_at[0] + 1
    assert [segment.frames for segment in await decoding.segments()] == LENGTHS[:1]


async def test_a_redone_chunk_shows_the_same_and_the_lost_attempt_leaves_no_file(decoding: Decoding) -> None:
    async def vanish(call: StageCall, segment: SegmentFile) -> None:
        if segment.index == 1:
            raise ConnectionError("power cut")

    lost = await decoding.take(store=Hooked(decoding.store, vanish))
    with pytest.raises(ConnectionError):
        await decoding.run(lost)
    (before,) = await decoding.segments()
    first = await decoding.artifacts.get_bytes(before.uri)
    await decoding.store.lose(lost.work.call, LOST, max_losses=5)
    room = await decoding.take()
    await decoding.complete(room, await decoding.run(room))
    after = await decoding.segments()
    assert [segment.frames for segment in after] == LENGTHS
    assert await decoding.artifacts.get_bytes(after[0].uri) == first
    assert after[0].uri != before.uri
    assert any(name.startswith(f"outputs/preview/0-{lost.work.call.epoch}/") for name in files(decoding))
    await Sweeper(decoding.store, decoding.artifacts, logger(), keep_s=3600).sweep()
    epoch = room.work.call.epoch
    kept = {f"outputs/preview/0-{epoch}/{name}" for name in NAMES}
    assert files(decoding) == kept | {f"outputs/{epoch}.mp4"}
    folder = decoding.folder / "artifacts" / "jobs" / "j1" / "outputs" / "preview"
    assert [path.name for path in folder.iterdir()] == [f"0-{epoch}"]


async def test_who_lost_the_stage_withdraws_what_it_wrote(decoding: Decoding) -> None:
    async def lose(call: StageCall, segment: SegmentFile) -> None:
        if segment.index == 1:
            await decoding.store.delete_job("j1", TENANT)

    room = await decoding.take(store=Hooked(decoding.store, lose))
    with pytest.raises(StaleEpoch):
        await decoding.run(room)
    written = {name for name in files(decoding) if name.startswith("outputs/")}
    assert written == {f"outputs/preview/0-{room.work.call.epoch}/{name}" for name in ("init.mp4", "0.m4s")}


async def test_a_cancelled_job_keeps_what_can_be_watched_and_a_deleted_one_nothing(decoding: Decoding) -> None:
    async def cancel(call: StageCall, segment: SegmentFile) -> None:
        room.lease.judge(Verdict.CANCELLED)

    room = await decoding.take(store=Hooked(decoding.store, cancel))
    with pytest.raises(Revoked):
        await decoding.run(room)
    # The lease is over, so the sweeper need not wait for it.
    await decoding.store.lose(room.work.call, LOST, max_losses=5)
    await decoding.store.cancel_job("j1", TENANT)
    sweeper = Sweeper(decoding.store, decoding.artifacts, logger(), keep_s=3600)
    await sweeper.sweep()
    folder = f"outputs/preview/0-{room.work.call.epoch}"
    assert files(decoding) == {f"{folder}/{name}" for name in ("init.mp4", "0.m4s")}
    await decoding.store.delete_job("j1", TENANT)
    await sweeper.sweep()
    assert not (decoding.folder / "artifacts" / "jobs" / "j1").exists()


@pytest.mark.long
def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """In a process of its own. The allocator gives freed blocks back at once, so its peak is what was in use."""
    short, long = 33, 129
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.deployments.decoding", str(tmp_path), "29", str(short), str(long)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, before, after = map(int, done.stdout.split())
    pixels_nbytes = (long - short) * 128 * 128 * 3
    assert after - before < pixels_nbytes / 2, f"the peak grew by {after - before} bytes"


async def test_two_results_are_decoded_side_by_side_into_files_of_their_own(decoding: Decoding) -> None:
    await decoding.ready(FRAMES, job_id="two", n=2)
    rooms = [await decoding.take("two", result=result) for result in (0, 1)]
    made = await asyncio.gather(*map(decoding.run, rooms))
    for room, artifact in zip(rooms, made, strict=True):
        await decoding.complete(room, artifact)
    await Sweeper(decoding.store, decoding.artifacts, logger(), keep_s=3600).sweep()
    previews = {f"outputs/preview/{part}-1/{name}" for part in ("0", "r1-0") for name in NAMES}
    assert files(decoding, "two") == previews | {"outputs/1.mp4", "outputs/r1-1.mp4"}
    first, second = [await decoding.artifacts.get_bytes(artifact.uri) for artifact in made]
    alone = await decoding.artifacts.get_bytes((await decoding.run(await decoding.take())).uri)
    assert first == alone != second
    job = await decoding.store.get_job("two", TENANT)
    assert [result.artifact for result in job.results] == made
