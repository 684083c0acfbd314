"""The contract suite: leadership, the reading for policies, ends and sweeping."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from cluster.errors import NotFound, StaleEpoch
from cluster.records import Beat, Failure, JobState, StageCall, StageRef, Verdict
from cluster.store.base import JobStore, Workload
from tests.unit.cluster.makers import ARTIFACT, EPOCH, handle, kept_for, request, worker
from tests.unit.cluster.store.play import LEASE_S, R2V, TENANT, Play, outputs

LOST = Failure("worker_lost", "The worker of this stage died.")
BROKEN = Failure("non_finite", "The latents became NaN.")


class SchedulerContract:
    """Leadership, the reading for policies, ends and sweeping."""

    async def test_one_leads_at_a_time(self, store: JobStore) -> None:
        claims = await asyncio.gather(*(store.lead(f"s{index}", 60.0) for index in range(8)))
        (leader,) = [claim for claim in claims if claim is not None]
        assert await store.lead(leader.owner, 60.0) == leader
        assert await store.lead("other", 60.0) is None

    async def test_a_takeover_fences_the_old_leader(self, play: Play) -> None:
        await play.create("ready")
        old = play.leadership
        assert await play.store.lead(old.owner, 0.0) == old  # renewed for no time at all
        new = await play.store.lead("s2", 60.0)
        assert new is not None
        assert new.term == old.term + 1
        assert await play.store.lead(old.owner, 60.0) is None
        before = await play.everything("ready")
        for attempt in (
            play.store.dispatch(old, [StageRef("ready", "text")]),
            play.store.reap(old, dispatch_ttl_s=0, max_losses=1),
            play.store.fail_job(old, "ready", BROKEN),
        ):
            with pytest.raises(StaleEpoch):
                await attempt
        assert await play.everything("ready") == before
        await play.store.resign(old)  # no longer its to give
        assert await play.store.lead("s3", 60.0) is None

    async def test_living(self, play: Play) -> None:
        names = ["ready", "running", "done", "failed", "cancelled", "deleted"]
        for name in names:
            await play.create(name)
        await play.until("denoise", "running")
        await play.published("done")
        await play.store.fail_job(play.leadership, "failed", BROKEN)
        await play.store.cancel_job("cancelled", TENANT)
        await play.store.delete_job("deleted", TENANT)
        assert await play.store.living([*names, "never"]) == {"ready", "running"}
        assert await play.store.living([]) == set()

    async def test_a_resignation_passes_the_lead_on_at_once(self, store: JobStore) -> None:
        first = await store.lead("s1", 600.0)
        assert first is not None
        await store.resign(first)
        with pytest.raises(StaleEpoch):
            await store.dispatch(first, [])
        second = await store.lead("s2", 600.0)
        assert second is not None
        assert second.term > first.term
        await store.resign(second)
        again = await store.lead("s1", 600.0)
        assert again is not None
        assert again.term > second.term
        with pytest.raises(StaleEpoch):
            await store.dispatch(first, [])  # the owner is the same, the term is not

    async def test_dispatch_leaves_out_what_is_not_ready(self, play: Play) -> None:
        await play.create()
        text = StageRef("j1", "text")
        refs = [text, StageRef("j1", "denoise"), StageRef("gone", "text"), text]
        assert await play.store.dispatch(play.leadership, refs) == [StageCall(text, 1)]
        assert not await play.store.dispatch(play.leadership, refs)

    async def test_state_is_what_policies_rank_by(self, play: Play) -> None:
        await play.store.register(worker("w1", text=2, denoise=1))
        await play.store.register(worker("w2", text=1))
        await play.create("a", request(priority=3, deadline_s=60.0))
        await play.create("b")
        await play.create("c")
        await play.dispatch("text", "c")
        await play.take("condition", "c")
        state = await play.store.state(worker_ttl_s=60)
        assert state.busy == {"text": 1, "condition": 1}
        assert {w.id: dict(w.slots) for w in state.workers} == {"w1": {"text": 2, "denoise": 1}, "w2": {"text": 1}}
        ready = {item.ref: item for item in state.ready}
        assert ready.keys() == {StageRef(job, stage) for job in "ab" for stage in ("text", "condition")}
        a, job = ready[StageRef("a", "text")], await play.job("a")
        assert (a.model, a.tenant_id, a.priority) == (job.request.model, TENANT, 3)
        assert (a.deadline_at, a.created_at) == (job.created_at + timedelta(seconds=60), job.created_at)
        assert ready[StageRef("b", "text")].deadline_at is None

    async def test_a_flood_hides_neither_a_stage_nor_an_old_job(self, play: Play) -> None:
        await play.create("old", request(priority=-1))
        await play.create("plain")
        for index in range(4):
            await play.create(f"urgent{index}", request(priority=5))
        await play.create("due", request(priority=5, deadline_s=60.0))
        state = await play.store.state(worker_ttl_s=60, ready_limit=1)
        expected = {StageRef(job, stage) for job in ("due", "old") for stage in ("text", "condition")}
        assert expected <= {item.ref for item in state.ready}

    async def test_workers_come_stay_and_go(self, play: Play) -> None:
        async def alive(ttl_s: float = 60) -> dict[str, int]:
            return {w.id: w.slots["text"] for w in (await play.store.state(worker_ttl_s=ttl_s)).workers}

        await play.store.register(worker("w1", text=1))
        await play.store.register(worker("w1", text=2))
        await play.store.register(worker("w2", text=1))
        assert await alive() == {"w1": 2, "w2": 1}
        seen = {w.id: w.seen_at for w in (await play.store.state(worker_ttl_s=60)).workers}
        assert seen["w1"] > EPOCH  # the database's clock, whatever the record says
        await play.store.unregister("w2")
        await play.store.unregister("w2")
        assert await alive() == {"w1": 2}
        while await play.store.now() <= seen["w1"]:
            pass  # one tick of the clock
        await play.store.heartbeat("w1", [], LEASE_S)
        assert {w.id: w.seen_at for w in (await play.store.state(worker_ttl_s=60)).workers}["w1"] > seen["w1"]
        assert await alive(0) == {}

    async def test_the_last_result_ends_the_job_once(self, play: Play) -> None:
        await play.create("kept", kept_for(3600))
        await play.create("plain")
        kept, plain = await play.published("kept"), await play.published("plain")
        assert (kept.state, kept.phase, kept.progress) == (JobState.DONE, "done", 1.0)
        assert [result.artifact for result in kept.results] == [ARTIFACT]
        assert kept.finished_at is not None
        assert kept.expires_at == kept.finished_at + timedelta(seconds=3600)
        assert plain.expires_at is None
        before = await play.everything("plain")
        last = next(status for status in plain.stages if status.stage == "decode")
        call = StageCall(StageRef("plain", "decode"), last.attempt)
        await play.store.complete(call, outputs("decode"), ARTIFACT)  # told again
        await play.store.fail_job(play.leadership, "plain", BROKEN)
        await play.store.cancel_job("plain", TENANT)
        assert await play.everything("plain") == before
        assert [event.data["state"] for event in await play.log("plain") if event.type == "state"] == [
            "running",
            "publishing",
            "done",
        ]

    async def test_the_scheduler_can_fail_a_job(self, play: Play) -> None:
        await play.create()
        call = (await play.take("text")).call
        await play.store.fail_job(play.leadership, "j1", BROKEN)
        assert (await play.job()).failure == BROKEN
        assert await play.store.verdicts([call]) == {call.ref: Verdict.CANCELLED}
        with pytest.raises(NotFound):
            await play.store.fail_job(play.leadership, "unknown", BROKEN)

    async def test_sweeping_lists_each_job_until_it_is_swept(self, play: Play) -> None:
        for job_id, made in (("a", request()), ("b", kept_for(0)), ("c", request()), ("alive", request())):
            await play.create(job_id, made)
        for job_id in "abc":
            await play.published(job_id)
        store, day = play.store, 86400.0
        assert await store.sweepable(keep_s=day) == [("a", False), ("b", True), ("c", False)]
        assert await store.sweepable(keep_s=day, limit=1) == [("a", False)]
        await store.swept("a", results=False)
        await store.swept("b", results=True)
        assert await store.sweepable(keep_s=day) == [("c", False)]
        await store.delete_job("c", TENANT)
        await store.swept("c", results=False)  # by a sweeper that had listed it before it was deleted
        assert await store.sweepable(keep_s=day) == [("c", True)]
        await store.swept("c", results=True)
        assert await store.sweepable(keep_s=day) == []
        assert await store.sweepable(keep_s=0) == [("a", True)]
        await store.delete_job("a", TENANT)
        assert await store.sweepable(keep_s=day) == [("a", True)]

    async def test_files_stay_while_a_cancelled_worker_may_still_write(self, play: Play) -> None:
        await play.create("held")
        await play.create("free")
        await play.take("text", "held")
        for job_id in ("held", "free"):
            await play.store.delete_job(job_id, TENANT)
        assert await play.store.sweepable(keep_s=0) == [("free", True)]

    async def test_what_draining_and_dead_workers_hold_is_told_apart(self, play: Play) -> None:
        await play.store.register(worker("w1", text=1))
        await play.store.register(worker("w2", text=1))
        for name in ("on w1", "on w2", "sent"):
            await play.create(name)
        await play.take("text", "on w1", worker="w1")
        await play.take("text", "on w2", worker="w2")
        await play.dispatch("text", "sent")
        state = await play.store.state(worker_ttl_s=60)
        assert (state.busy, state.leaving) == ({"text": 3}, {})
        await play.store.unregister("w2")
        state = await play.store.state(worker_ttl_s=60)
        assert (state.busy, state.leaving) == ({"text": 3}, {"text": 1})
        assert (await play.store.state(worker_ttl_s=0)).leaving == {"text": 2}

    async def test_the_workload_counts_calls_of_everybody_and_live_replicas(self, play: Play) -> None:
        assert await play.store.workload(worker_ttl_s=60) == Workload([], {})
        await play.store.register(worker("w1", text=1))
        await play.store.register(replace(worker("w2", text=1), pool="Other"))
        for name in ("a", "b", "c"):
            await play.create(name)
        await play.store.create_job("d", "somebody else", request(), R2V)
        await play.take("text", "a")
        await play.dispatch("text", "b")
        workload = await play.store.workload(worker_ttl_s=60)
        assert workload.replicas == {"Model": 1, "Other": 1}
        by_stage = {work.stage: (work.ready, work.running, work.left, work.device_s) for work in workload.stages}
        assert by_stage == {"condition": (4, 0, 0.0, None), "text": (2, 2, 2.0, None)}
        assert not (await play.store.workload(worker_ttl_s=0)).replicas

    async def test_the_workload_knows_what_is_left_and_what_calls_cost(self, play: Play) -> None:
        for name, tenant, busy_s in (("a", TENANT, 2.0), ("b", "somebody else", 4.0)):
            await play.store.create_job(name, tenant, request(), R2V)
            call = (await play.take("text", name)).call
            await play.store.complete(call, {"context": handle("text.0")}, busy_s=busy_s)
        await play.create("c")
        await play.until("denoise", "c")
        call = (await play.take("denoise", "c")).call
        await play.store.heartbeat("w1", [Beat(call, 6, 8)], LEASE_S)
        work = {work.stage: work for work in (await play.store.workload(worker_ttl_s=60)).stages}
        assert work["text"].device_s == pytest.approx((2.0 + 4.0 + 0.0) / 3)
        assert (work["denoise"].ready, work["denoise"].running, work["denoise"].left) == (0, 1, 0.25)
