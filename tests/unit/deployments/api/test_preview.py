"""The preview over HTTP: what a player sees while a job runs, after it, and after its files have gone."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urljoin

import av
import pytest
import uvicorn

from cluster.records import Artifact, Failure, SegmentFile, StageCall
from cluster.wiring import graph
from components.media.segments import Segment, SegmentEncoder
from deployments.artifacts import job_key
from deployments.sweeper import Sweeper
from deployments.telemetry import logger
from tests.unit.cluster.makers import request
from tests.unit.cluster.store.play import R2V, Play, outputs
from tests.unit.components.media.conftest import moving_picture
from tests.unit.deployments.api.conftest import Edge

CLIP = moving_picture(121, 64, 112)
LOST = Failure("worker_lost", "The worker of this stage died.")


def encoded() -> tuple[bytes, list[Segment]]:
    with SegmentEncoder(64, 112, 24) as encoder:
        return encoder.init, [*encoder.encode(CLIP), *encoder.finish()]


def hashes(url: str, count: int | None = None) -> list[str]:
    """Every frame that a player decodes, or the first ones. (This player begins an open list at its third last segment
    unless it is told otherwise; most obey the playlist's EXT-X-START.)
    """
    options = {"live_start_index": "0"} if url.startswith("http") else {}
    with av.open(url, options=options, timeout=20) as video:
        frames = islice(video.decode(video=0), count)
        return [hashlib.md5(frame.to_ndarray().tobytes(), usedforsecurity=False).hexdigest() for frame in frames]


@dataclass
class Decoding:
    """A job whose decode stage the test plays."""

    edge: Edge
    play: Play
    id: str
    call: StageCall
    init: bytes
    segments: list[Segment]

    @property
    def path(self) -> str:
        return f"/v1/videos/{self.id}/preview"

    async def add(self, first: int, last: int) -> None:
        folder = job_key(self.id, "outputs", f"preview/0-{self.call.epoch}")
        init = await self.edge.artifacts.put_bytes(f"{folder}/init.mp4", self.init)
        for segment in self.segments[first:last]:
            stored = await self.edge.artifacts.put_bytes(f"{folder}/{segment.index}.m4s", segment.data)
            facts = (segment.first_frame, segment.frames, segment.duration_s)
            listed = SegmentFile(segment.index, stored.uri, init.uri, stored.nbytes, *facts)
            await self.edge.store.add_segment(self.call, listed)

    async def done(self) -> None:
        stored = await self.edge.artifacts.put_bytes(job_key(self.id, "outputs", "1.mp4"), b"the file")
        artifact = Artifact(stored.uri, "video/mp4", stored.nbytes, stored.sha256, 121 / 24, 121, 112, 64)
        await self.edge.store.complete(self.call, outputs("decode"), artifact)

    async def playlist(self) -> list[str]:
        answer = await self.edge.client.get(self.path)
        assert answer.status_code == 200, answer.text
        return answer.text.splitlines()


@pytest.fixture
async def decoding(edge: Edge) -> Decoding:
    job_id = (await edge.store.create_job("video_1", edge.config.tenant, request(frames=121, duration_s=5), R2V)).id
    leadership = await edge.store.lead("s1", 600.0)
    assert leadership is not None
    play = Play(edge.store, leadership)
    await play.until("decode", job_id)
    return Decoding(edge, play, job_id, (await play.take("decode", job_id)).call, *encoded())


@asynccontextmanager
async def listening(edge: Edge) -> AsyncIterator[str]:
    """The application on a real socket, for players."""
    server = uvicorn.Server(uvicorn.Config(edge.app, port=0, log_level="warning", lifespan="off", ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


async def test_before_the_first_segment_there_is_nothing_to_play(decoding: Decoding) -> None:
    answer = await decoding.edge.client.get(decoding.path)
    assert answer.status_code == 409
    assert "no segment yet" in answer.json()["error"]["message"]


async def test_the_playlist_grows_and_ends(decoding: Decoding) -> None:
    await decoding.add(0, 2)
    answer = await decoding.edge.client.get(decoding.path)
    assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert answer.headers["cache-control"] == "no-cache"
    early = answer.text.splitlines()
    assert [line for line in early if line.endswith(".m4s")] == ["preview/0/0.m4s", "preview/0/1.m4s"]
    assert "#EXT-X-ENDLIST" not in early
    await decoding.add(2, 6)
    await decoding.done()
    late = await decoding.playlist()
    assert late[: len(early)] == early
    assert late[-1] == "#EXT-X-ENDLIST"
    assert late.count("#EXTINF:1.000000,") == 5
    assert late[-3:-1] == ["#EXTINF:0.041667,", "preview/0/5.m4s"]
    assert (await decoding.edge.client.head(decoding.path)).status_code == 200


async def test_files_have_their_types_and_validators(decoding: Decoding) -> None:
    await decoding.add(0, 1)
    client = decoding.edge.client
    for name, kind, data in (
        ("init.mp4", "video/mp4", decoding.init),
        ("0.m4s", "video/iso.segment", decoding.segments[0].data),
    ):
        url = urljoin(f"http://edge{decoding.path}", f"preview/0/{name}")
        answer = await client.get(url)
        assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, kind, data)
        again = await client.get(url, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
        assert (await client.head(url)).headers["content-length"] == str(len(data))


async def test_a_new_attempt_changes_the_bytes_validator_and_not_the_list(decoding: Decoding) -> None:
    await decoding.add(0, 3)
    before = await decoding.playlist()
    etag = (await decoding.edge.client.get(f"{decoding.path}/0/0.m4s")).headers["etag"]
    await decoding.edge.store.release(decoding.call)
    decoding.call = (await decoding.play.take("decode", decoding.id)).call
    assert await decoding.playlist() == before
    await decoding.add(0, 1)
    assert await decoding.playlist() == before
    answer = await decoding.edge.client.get(f"{decoding.path}/0/0.m4s", headers={"if-none-match": etag})
    assert answer.status_code == 200
    assert (await decoding.edge.client.get(f"{decoding.path}/0/2.m4s")).content == decoding.segments[2].data


@pytest.mark.parametrize(
    "name",
    ["0/1.m4s", "1/0.m4s", "0/nothing", "0/00.m4s", "0/..%2F..%2F1.mp4", "0/%2Fetc%2Fpasswd", "0/-1.m4s", "-1/init.mp4",
     "0/..%5C1.mp4", "../content", "0/../../../../jobs.db", "99999999999999999999/0.m4s"],
)  # fmt: skip
async def test_no_other_name_leads_anywhere(decoding: Decoding, name: str) -> None:
    await decoding.add(0, 1)
    answer = await decoding.edge.client.get(f"{decoding.path}/{name}")
    assert answer.status_code in (404, 409), answer.text  # 409: the client itself went up to /content
    assert answer.json()["error"]["code"] in ("not_found", "conflict")


async def test_a_chunk_is_a_number(decoding: Decoding) -> None:
    assert (await decoding.edge.client.get(f"{decoding.path}/..%2F0/init.mp4")).status_code == 404
    assert (await decoding.edge.client.get(f"{decoding.path}/first/init.mp4")).status_code == 400


@pytest.mark.parametrize("end", ["cancel", "fail"])
async def test_an_unhappy_end_closes_the_playlist(decoding: Decoding, end: str) -> None:
    await decoding.add(0, 2)
    if end == "cancel":
        await decoding.edge.client.post(f"/v1/videos/{decoding.id}/cancel")
    else:
        await decoding.edge.store.lose(decoding.call, LOST, max_losses=1)
    late = await decoding.playlist()
    assert late[-2:] == ["preview/0/1.m4s", "#EXT-X-ENDLIST"]


async def test_an_end_before_the_first_segment_leaves_no_preview(decoding: Decoding) -> None:
    await decoding.edge.client.post(f"/v1/videos/{decoding.id}/cancel")
    answer = await decoding.edge.client.get(decoding.path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_each_result_has_a_playlist_and_files_of_its_own(edge: Edge) -> None:
    asked = request(n=2, frames=121, duration_s=5)
    await edge.store.create_job("video_2", edge.config.tenant, asked, graph("r2v", 2))
    leadership = await edge.store.lead("s1", 600.0)
    assert leadership is not None
    play = Play(edge.store, leadership)
    for stage in ("text", "condition"):
        await play.finish(stage, "video_2")
    await edge.store.complete((await play.take("denoise", "video_2", result=1)).call, outputs("denoise"))
    second = Decoding(edge, play, "video_2", (await play.take("decode", "video_2", result=1)).call, *encoded())
    await second.add(0, 2)
    assert (await edge.client.get(second.path)).status_code == 409
    assert (await edge.client.get(f"{second.path}?index=2")).status_code == 404
    listed = (await edge.client.get(f"{second.path}?index=1")).text.splitlines()
    assert [line for line in listed if ".m4s" in line] == ["preview/0/0.m4s?index=1", "preview/0/1.m4s?index=1"]
    assert listed[-1] != "#EXT-X-ENDLIST"
    answer = await edge.client.get(urljoin(f"http://edge{second.path}", listed[-1]))
    assert answer.content == second.segments[1].data
    assert (await edge.client.get(f"{second.path}/0/1.m4s")).status_code == 404
    await second.add(2, 6)
    artifact = Artifact("file:///gone", "video/mp4", 8, "ab" * 32, 121 / 24, 121, 112, 64)
    await edge.store.complete(second.call, outputs("decode"), artifact)
    assert (await edge.client.get("/v1/videos/video_2")).json()["status"] == "in_progress"
    async with listening(edge) as url:
        assert len(await asyncio.to_thread(hashes, f"{url}{second.path}?index=1")) == len(CLIP)


async def test_deleted_and_unknown_videos_have_none(decoding: Decoding) -> None:
    await decoding.add(0, 1)
    await decoding.edge.client.delete(f"/v1/videos/{decoding.id}")
    for video in (decoding.id, "unknown"):
        for path in ("", "/0/init.mp4", "/0/0.m4s"):
            assert (await decoding.edge.client.get(f"/v1/videos/{video}/preview{path}")).status_code == 404


async def test_it_lives_as_long_as_the_results(decoding: Decoding) -> None:
    await decoding.add(0, 6)
    await decoding.done()
    store, artifacts = decoding.edge.store, decoding.edge.artifacts
    await Sweeper(store, artifacts, logger(), keep_s=3600).sweep()
    assert (await decoding.edge.client.get(f"{decoding.path}/0/5.m4s")).content == decoding.segments[5].data
    assert (await decoding.edge.client.get(f"/v1/videos/{decoding.id}/content")).content == b"the file"
    await Sweeper(store, artifacts, logger(), keep_s=0).sweep()
    for path in (decoding.path, f"{decoding.path}/0/init.mp4", f"{decoding.path}/0/0.m4s"):
        assert (await decoding.edge.client.get(path)).status_code == 404
    gone = await decoding.edge.client.get(f"/v1/videos/{decoding.id}/content")
    assert (gone.status_code, "expired" in gone.json()["error"]["message"]) == (404, True)


async def test_a_player_shows_the_listed_segments_while_the_job_runs_and_all_after_it(decoding: Decoding) -> None:
    whole = decoding.init + b"".join(segment.data for segment in decoding.segments)
    (path := decoding.edge.config.state_path / "whole.mp4").write_bytes(whole)
    expected = hashes(str(path))
    assert len(set(expected)) == len(expected) == len(CLIP)
    async with listening(decoding.edge) as url:
        await decoding.add(0, 4)
        assert await asyncio.to_thread(hashes, url + decoding.path, 96) == expected[:96]
        await decoding.add(4, 6)
        await decoding.done()
        assert await asyncio.to_thread(hashes, url + decoding.path) == expected


async def test_a_player_that_waits_gets_the_rest(decoding: Decoding) -> None:
    async with listening(decoding.edge) as url:
        await decoding.add(0, 3)
        watching = asyncio.create_task(asyncio.to_thread(hashes, url + decoding.path))
        await decoding.add(3, 6)
        await decoding.done()
        seen = await watching
    assert len(set(seen)) == len(seen) == len(CLIP)
