"""The contract suite: the finished segments of a job, who may add them and what readers see."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cluster.errors import NotFound, StaleEpoch
from cluster.graphs import Source, StageGraph, StageNode
from cluster.records import Failure, SegmentFile
from tests.unit.cluster.makers import ARTIFACT, handle
from tests.unit.cluster.store.play import TENANT, Play, outputs

LOST = Failure("worker_lost", "The worker of this stage died.")


def segment(index: int, attempt: str = "a") -> SegmentFile:
    folder = f"file:///out/preview/{attempt}"
    return SegmentFile(index, f"{folder}/{index}.m4s", f"{folder}/init.mp4", 100 + index, 24 * index, 24, 1.0)


class SegmentContract:
    """Segments are written by the owner of the stage, in its epoch."""

    async def test_segments_are_listed_in_order_with_an_event_each(self, play: Play) -> None:
        await play.create()
        await play.until("decode")
        assert await play.store.segments("j1", TENANT) == {}
        call = (await play.take("decode")).call
        for index in range(12):
            await play.store.add_segment(call, segment(index))
        assert await play.store.segments("j1", TENANT) == {0: [segment(index) for index in range(12)]}
        told = [event.data for event in await play.log() if event.type == "segment"]
        assert told[2] == {"stage": "decode", "result": 0, "chunk": 0, "index": 2, "first_frame": 48, "frames": 24}
        assert [data["index"] for data in told] == list(range(12))

    async def test_telling_again_changes_nothing(self, play: Play) -> None:
        await play.create()
        await play.until("decode")
        call = (await play.take("decode")).call
        await play.store.add_segment(call, segment(0))
        before = await play.everything()
        await asyncio.gather(*(play.store.add_segment(call, segment(0)) for _ in range(5)))
        assert await play.everything() == before
        assert await play.store.segments("j1", TENANT) == {0: [segment(0)]}

    async def test_only_the_winner_of_the_claim_adds(self, play: Play) -> None:
        await play.create()
        await play.until("decode")
        unclaimed = await play.dispatch("decode")
        with pytest.raises(StaleEpoch):
            await play.store.add_segment(unclaimed, segment(0))
        await play.store.lose(unclaimed, LOST, max_losses=5)
        call = await play.dispatch("decode")
        claims = await asyncio.gather(*(play.store.claim(call, f"w{index}", 600) for index in range(5)))
        assert len([work for work in claims if work is not None]) == 1
        with pytest.raises(StaleEpoch):
            await play.store.add_segment(unclaimed, segment(0, "old"))
        await play.store.add_segment(call, segment(0))
        assert await play.store.segments("j1", TENANT) == {0: [segment(0)]}

    async def test_an_ended_stage_takes_no_more(self, play: Play) -> None:
        for name in ("cancelled", "deleted", "done"):
            await play.create(name)
            await play.until("decode", name)
        calls = {name: (await play.take("decode", name)).call for name in ("cancelled", "deleted", "done")}
        await play.store.add_segment(calls["cancelled"], segment(0))
        await play.store.cancel_job("cancelled", TENANT)
        await play.store.delete_job("deleted", TENANT)
        await play.store.complete(calls["done"], outputs("decode"), ARTIFACT)
        for call in calls.values():
            with pytest.raises(StaleEpoch):
                await play.store.add_segment(call, segment(1))
        assert await play.store.segments("cancelled", TENANT) == {0: [segment(0)]}  # what there was can be watched

    async def test_the_next_attempt_replaces_the_list_without_shrinking_it(self, play: Play) -> None:
        await play.create()
        await play.until("decode")
        old = (await play.take("decode")).call
        for index in range(3):
            await play.store.add_segment(old, segment(index, "a"))
        await play.store.lose(old, LOST, max_losses=5)
        new = (await play.take("decode", worker="w2")).call
        assert await play.store.segments("j1", TENANT) == {0: [segment(index, "a") for index in range(3)]}
        await play.store.add_segment(new, segment(0, "b"))
        with pytest.raises(StaleEpoch):
            await play.store.add_segment(old, segment(0, "a"))
        mixed = [segment(0, "b"), segment(1, "a"), segment(2, "a")]
        assert await play.store.segments("j1", TENANT) == {0: mixed}
        last = replace(segment(1, "b"), frames=1)
        await play.store.add_segment(new, last)
        await play.store.complete(new, outputs("decode"), ARTIFACT)
        assert await play.store.segments("j1", TENANT) == {0: [segment(0, "b"), last]}  # nothing of the lost attempt

    async def test_foreign_deleted_and_unknown_jobs_have_no_segments(self, play: Play) -> None:
        for name in ("mine", "deleted"):
            await play.create(name)
            await play.until("decode", name)
            await play.store.add_segment((await play.take("decode", name)).call, segment(0))
        await play.store.delete_job("deleted", TENANT)
        for job_id, tenant in (("mine", "other"), ("deleted", TENANT), ("unknown", TENANT)):
            with pytest.raises(NotFound, match="does not exist"):
                await play.store.segments(job_id, tenant)

    async def test_chunks_have_lists_of_their_own(self, play: Play) -> None:
        rolls = tuple(
            StageNode(
                "roll",
                chunk,
                inputs={"last": Source("roll", chunk - 1, "frames")} if chunk else {},
                accepts={"last": "Artifact"} if chunk else {},
                outputs={"frames": "Artifact"},
            )
            for chunk in range(2)
        )
        await play.create(graph=StageGraph("rolls", rolls, Source("roll", 1, "frames")))
        for chunk in range(2):
            call = (await play.take("roll", chunk=chunk)).call
            await play.store.add_segment(call, segment(0, f"{chunk}"))
            await play.store.complete(call, {"frames": handle(f"roll.{chunk}")}, ARTIFACT if chunk else None)
        found = await play.store.segments("j1", TENANT)
        assert found == {0: [segment(0, "0")], 1: [segment(0, "1")]}
        assert list(found) == [0, 1]

    async def test_the_results_are_the_artifact_and_what_the_last_attempt_wrote(self, play: Play) -> None:
        await play.create()
        await play.until("decode")
        old = (await play.take("decode")).call
        await play.store.add_segment(old, segment(0, "a"))
        await play.store.lose(old, LOST, max_losses=5)
        new = (await play.take("decode")).call
        await play.store.add_segment(new, segment(0, "b"))
        await play.store.complete(new, outputs("decode"), ARTIFACT)
        uris = {ARTIFACT.uri, segment(0, "b").uri, segment(0, "b").init_uri}
        assert await play.store.result_uris("j1") == uris
        await play.store.swept("j1", results=False)
        assert await play.store.segments("j1", TENANT) == {0: [segment(0, "b")]}
        await play.store.swept("j1", results=True)
        assert await play.store.segments("j1", TENANT) == {}
        assert await play.store.result_uris("unknown") == set()
