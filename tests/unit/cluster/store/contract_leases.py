"""The contract suite: who owns a stage, and what failures and losses do."""

from __future__ import annotations

import asyncio

import pytest

from cluster.errors import Conflict, StaleEpoch
from cluster.graphs import Source, StageGraph, StageNode
from cluster.records import Beat, Failure, JobState, Result, StageCall, StageRef, StageState, Verdict
from tests.unit.cluster.makers import ARTIFACT, EPOCH, handle, request
from tests.unit.cluster.store.play import LEASE_S, TENANT, Play, outputs

LOST = Failure("worker_lost", "The worker of this stage died.")
BROKEN = Failure("non_finite", "The latents became NaN.")


class LeaseContract:
    """Who owns a stage, and what an old owner can no longer do."""

    async def test_one_of_twenty_claimers_wins(self, play: Play) -> None:
        await play.create()
        call = await play.dispatch("text")
        results = await asyncio.gather(*(play.store.claim(call, f"w{index}", LEASE_S) for index in range(20)))
        winners = [work for work in results if work is not None]
        assert len(winners) == 1
        assert (winners[0].call, winners[0].attempt, winners[0].tenant_id) == (call, 1, TENANT)
        assert [event.data["state"] for event in await play.log() if event.type == "state"] == ["running"]

    async def test_a_claim_brings_everything_the_stage_needs(self, play: Play) -> None:
        await play.create(request=request(seed=99))
        await play.until("denoise")
        work = await play.take("denoise")
        assert work.request.seed == 99
        assert work.inputs == {"context": handle("text.0"), "condition": handle("condition.0")}
        assert work.snapshot is None
        assert work.created_at <= await play.store.now()
        assert work.deadline_at is None

    async def test_a_job_is_queued_until_its_first_claim_and_never_again(self, play: Play) -> None:
        await play.create()
        call = await play.dispatch("text")
        assert (await play.job()).state is JobState.QUEUED
        await play.store.claim(call, "w1", LEASE_S)
        running = await play.job()
        assert (running.state, running.phase) == (JobState.RUNNING, "text")
        assert running.started_at is not None
        await play.store.release(call)
        waiting = await play.job()
        assert (waiting.state, waiting.phase, waiting.started_at) == (JobState.RUNNING, "waiting", running.started_at)

    async def test_an_old_epoch_changes_nothing(self, play: Play) -> None:
        await play.create()
        old = (await play.take("text")).call
        await play.store.lose(old, LOST, max_losses=5)
        new = (await play.take("text", worker="w2")).call
        assert new.epoch == old.epoch + 1
        before = await play.everything()
        assert await play.store.heartbeat("w1", [Beat(old, 7, 8)], LEASE_S) == {old.ref: Verdict.STALE}
        assert await play.store.verdicts([old]) == {old.ref: Verdict.STALE}
        with pytest.raises(StaleEpoch):
            await play.store.complete(old, outputs("text"))
        with pytest.raises(StaleEpoch):
            await play.store.fail(old, BROKEN, retryable=False, max_failures=1)
        with pytest.raises(StaleEpoch):
            await play.store.save_snapshot(old, handle("s"), 3)
        with pytest.raises(StaleEpoch):
            await play.store.release(old)
        await play.store.lose(old, LOST, max_losses=1)
        assert await play.store.claim(old, "w1", LEASE_S) is None
        assert await play.everything() == before
        assert await play.store.verdicts([new]) == {new.ref: Verdict.ALIVE}

    async def test_a_requeued_stage_has_no_owner(self, play: Play) -> None:
        await play.create()
        call = (await play.take("text")).call
        await play.store.lose(call, LOST, max_losses=5)
        with pytest.raises(StaleEpoch):
            await play.store.complete(call, outputs("text"))
        assert await play.store.verdicts([call]) == {call.ref: Verdict.STALE}
        assert await play.stage("text") is StageState.READY

    async def test_another_worker_cannot_renew_the_lease(self, play: Play) -> None:
        await play.create()
        call = (await play.take("text", worker="w1")).call
        assert await play.store.heartbeat("w2", [Beat(call)], LEASE_S) == {call.ref: Verdict.STALE}
        assert await play.store.heartbeat("w1", [Beat(call)], LEASE_S) == {call.ref: Verdict.ALIVE}

    async def test_unknown_stages_are_stale(self, play: Play) -> None:
        await play.create()
        strangers = [StageCall(StageRef("gone", "text"), 1), StageCall(StageRef("j1", "nothing"), 1)]
        verdicts = dict.fromkeys((call.ref for call in strangers), Verdict.STALE)
        assert await play.store.verdicts(strangers) == verdicts
        assert await play.store.heartbeat("w1", [Beat(call) for call in strangers], LEASE_S) == verdicts
        for call in strangers:
            assert await play.store.claim(call, "w1", LEASE_S) is None
            with pytest.raises(StaleEpoch):
                await play.store.release(call)

    async def test_a_heartbeat_saves_the_lease_from_the_reaper(self, play: Play) -> None:
        await play.create()
        call = (await play.take("text", lease_s=0)).call
        await play.store.heartbeat("w1", [Beat(call)], LEASE_S)
        assert not await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=1)
        assert await play.store.verdicts([call]) == {call.ref: Verdict.ALIVE}

    async def test_progress_is_weighted_and_never_falls(self, play: Play) -> None:
        await play.create()
        await play.until("denoise")
        assert (await play.job()).progress == pytest.approx(0.05)
        call = (await play.take("denoise")).call
        await play.store.heartbeat("w1", [Beat(call, 4, 8)], LEASE_S)
        assert (await play.job()).progress == pytest.approx(0.45)
        log = await play.log()
        await play.store.heartbeat("w1", [Beat(call, 5, 8)], LEASE_S)
        assert await play.log() == log  # steps are no events
        await play.store.lose(call, LOST, max_losses=5)
        again = (await play.take("denoise")).call
        await play.store.heartbeat("w1", [Beat(again, 1, 8)], LEASE_S)
        job = await play.job()
        assert job.progress == pytest.approx(0.55)
        assert (job.attempts, job.phase) == (1, "denoise")
        await play.store.complete(again, outputs("denoise"))
        assert (await play.job()).progress == pytest.approx(0.85)
        await play.finish("decode")
        assert (await play.job()).progress == 1.0

    async def test_the_next_attempt_gets_the_newest_snapshot(self, play: Play) -> None:
        await play.create()
        await play.until("denoise")
        call = (await play.take("denoise")).call
        await play.store.save_snapshot(call, handle("s2"), 2)
        await play.store.save_snapshot(call, handle("s4"), 4)
        await play.store.lose(call, LOST, max_losses=5)
        status = next(status for status in (await play.job()).stages if status.stage == "denoise")
        assert (status.step, status.attempt) == (4, 1)
        work = await play.take("denoise")
        assert (work.snapshot, work.attempt) == (handle("s4"), 2)
        assert [event.data["step"] for event in await play.log() if event.type == "snapshot"] == [2, 4]

    async def test_completion_is_one_step(self, play: Play) -> None:
        await play.create()
        await play.finish("text")
        assert await play.stage("denoise") is StageState.BLOCKED
        await play.finish("condition")
        assert await play.stage("denoise") is StageState.READY
        await play.finish("denoise")
        call = (await play.take("decode")).call
        await play.store.complete(call, outputs("decode"), ARTIFACT)
        job = await play.job()
        assert (job.state, job.phase, job.results) == (JobState.DONE, "done", (Result(0, 7, ARTIFACT),))
        assert job.finished_at == next(status.done_at for status in job.stages if status.stage == "decode")

    async def test_a_completion_told_again_changes_nothing(self, play: Play) -> None:
        await play.create()
        call = await play.finish("text")
        before = await play.everything()
        await play.store.complete(call, outputs("text"))
        assert await play.everything() == before
        with pytest.raises(StaleEpoch):
            await play.store.complete(StageCall(call.ref, call.epoch + 1), outputs("text"))

    async def test_an_incomplete_result_is_refused_whole(self, play: Play) -> None:
        await play.create()
        call = (await play.take("text")).call
        before = await play.everything()
        with pytest.raises(Conflict, match="context"):
            await play.store.complete(call, {"other": handle("x")})
        assert await play.everything() == before
        await play.store.complete(call, outputs("text"))
        await play.finish("condition")
        await play.finish("denoise")
        last = (await play.take("decode")).call
        with pytest.raises(Conflict, match="artifact"):
            await play.store.complete(last, outputs("decode"))
        assert await play.stage("decode") is StageState.CLAIMED

    async def test_chunks_follow_each_other(self, play: Play) -> None:
        rolls = tuple(
            StageNode(
                "roll",
                chunk,
                inputs={"last": Source("roll", chunk - 1, "frames")} if chunk else {},
                accepts={"last": "Artifact"} if chunk else {},
                outputs={"frames": "Artifact"},
            )
            for chunk in range(3)
        )
        await play.create(graph=StageGraph("rolls", rolls, Source("roll", 2, "frames")))
        for chunk in range(3):
            work = await play.take("roll", chunk=chunk)
            assert work.inputs == ({"last": handle(f"roll.{chunk - 1}")} if chunk else {})
            assert not await play.store.dispatch(play.leadership, [StageRef("j1", "roll", c) for c in range(3)])
            await play.store.complete(work.call, {"frames": handle(f"roll.{chunk}")}, ARTIFACT if chunk == 2 else None)
            assert (await play.job()).progress == pytest.approx((chunk + 1) / 3)
        assert (await play.job()).state is JobState.DONE


class FailureContract:
    """What is counted, and when a job ends for it."""

    async def test_failures_end_the_job_with_the_workers_reason(self, play: Play) -> None:
        await play.create("j1")
        await play.create("j2")
        call = (await play.take("text")).call
        await play.store.fail(call, BROKEN, retryable=True, max_failures=2)
        assert await play.stage("text") is StageState.READY
        condition = (await play.take("condition")).call
        call = (await play.take("text")).call
        await play.store.fail(call, BROKEN, retryable=True, max_failures=2)
        job = await play.job()
        assert (job.state, job.phase, job.failure) == (JobState.FAILED, "failed", BROKEN)
        assert job.finished_at is not None
        assert {status.stage: status.state for status in job.stages}["text"] is StageState.FAILED
        assert await play.store.verdicts([condition]) == {condition.ref: Verdict.CANCELLED}
        assert (await play.job("j2")).state is JobState.QUEUED

    async def test_a_failure_that_cannot_be_retried_ends_the_job_at_once(self, play: Play) -> None:
        await play.create()
        await play.store.fail((await play.take("text")).call, BROKEN, retryable=False, max_failures=9)
        assert (await play.job()).failure == BROKEN

    async def test_losses_and_failures_are_counted_apart(self, play: Play) -> None:
        await play.create()
        for _ in range(2):
            await play.store.lose((await play.take("text")).call, LOST, max_losses=3)
        await play.store.fail((await play.take("text")).call, BROKEN, retryable=True, max_failures=2)
        assert (await play.job()).state is JobState.RUNNING
        await play.store.lose((await play.take("text")).call, LOST, max_losses=3)
        job = await play.job()
        assert (job.state, job.failure, job.attempts) == (JobState.FAILED, LOST, 3)

    async def test_release_counts_nothing(self, play: Play) -> None:
        await play.create()
        for _ in range(4):
            work = await play.take("text")
            assert work.attempt == 1
            await play.store.release(work.call)
        await play.store.fail((await play.take("text")).call, BROKEN, retryable=True, max_failures=2)
        job = await play.job()
        assert (job.state, job.attempts) == (JobState.RUNNING, 0)
        assert (await play.take("text")).attempt == 2

    async def test_an_unclaimed_dispatch_counts_nothing(self, play: Play) -> None:
        await play.create()
        for _ in range(3):
            await play.store.lose(await play.dispatch("text"), LOST, max_losses=1)
            call = await play.dispatch("text")
            assert await play.store.reap(play.leadership, dispatch_ttl_s=0, max_losses=1) == [call.ref]
            assert await play.store.claim(call, "w1", LEASE_S) is None
        assert (await play.job()).state is JobState.QUEUED

    async def test_reap_loses_dead_leases_and_leaves_live_ones(self, play: Play) -> None:
        await play.create("dead")
        await play.create("live")
        dead = (await play.take("text", "dead", lease_s=0)).call
        live = (await play.take("text", "live")).call
        assert await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=2) == [dead.ref]
        assert await play.stage("text", "dead") is StageState.READY
        assert await play.store.verdicts([dead, live]) == {dead.ref: Verdict.STALE, live.ref: Verdict.ALIVE}
        await play.take("text", "dead", lease_s=0)
        await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=2)
        job = await play.job("dead")
        assert (job.state, job.failure.code if job.failure else None) == (JobState.FAILED, "worker_lost")

    async def test_deadline_and_expiry_end_a_job_that_is_not_done(self, play: Play) -> None:
        await play.create("late", request(deadline_s=0.0))
        await play.create("expired", expires_at=EPOCH)
        await play.create("patient", request(deadline_s=3600.0))
        await play.create("running", request(deadline_s=0.0))
        call = (await play.take("text", "running")).call
        assert await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=2) == [call.ref]
        codes = {"late": "deadline_exceeded", "expired": "expired", "running": "deadline_exceeded"}
        for job_id, code in codes.items():
            job = await play.job(job_id)
            assert (job.state, job.failure.code if job.failure else None) == (JobState.EXPIRED, code)
        assert (await play.job("patient")).state is JobState.QUEUED
        assert await play.store.verdicts([call]) == {call.ref: Verdict.CANCELLED}
        assert not await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=2)

    async def test_a_job_that_is_done_does_not_expire(self, play: Play) -> None:
        await play.create(request=request(deadline_s=0.0))
        await play.until("")
        await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=2)
        assert (await play.job()).state is JobState.DONE
