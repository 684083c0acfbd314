"""The contract suite: creating, reading, listing, cancelling, deleting, and the log of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cluster.errors import Conflict, NotFound, StaleEpoch
from cluster.records import Beat, Delivery, Failure, JobState, StageState, Verdict
from tests.unit.cluster.makers import request
from tests.unit.cluster.store.play import LEASE_S, R2V, TENANT, Play, outputs

LOST = Failure("worker_lost", "The worker of this stage died.")
BROKEN = Failure("non_finite", "The latents became NaN.")


class ClientContract:
    """Creating, reading, listing, cancelling, deleting."""

    async def test_any_text_is_a_prompt_or_an_unknown_id(self, play: Play) -> None:
        prompt = "NUL \0, half a pair \ud800, \U0001f98a, 'quotes\" and \\u0000"
        await play.create(request=request(prompt=prompt))
        assert (await play.job()).request.prompt == prompt
        assert len((await play.store.state(worker_ttl_s=60)).ready) == 2
        await play.published()
        for job_id in ("j1\0", "\0", "\U0001f98a", "x" * 10_000):
            with pytest.raises(NotFound):
                await play.job(job_id)

    async def test_a_new_job_is_queued_and_complete(self, play: Play) -> None:
        created = await play.create(request=request(prompt="größer 🦊", seed=2**40))
        assert created == await play.job()
        assert (created.state, created.phase, created.progress) == (JobState.QUEUED, "queued", 0.0)
        assert created.request == request(prompt="größer 🦊", seed=2**40)
        assert created.created_at.utcoffset() == timedelta(0)
        assert {s.stage: s.state for s in created.stages} == {
            "text": StageState.READY,
            "condition": StageState.READY,
            "denoise": StageState.BLOCKED,
            "decode": StageState.BLOCKED,
        }

    async def test_an_id_is_used_once(self, play: Play) -> None:
        await play.create()
        before = await play.everything()
        with pytest.raises(Conflict):
            await play.store.create_job("j1", "other", request(), R2V)
        assert await play.everything() == before

    async def test_a_job_is_found_by_its_callers_name_of_it(self, play: Play) -> None:
        named = request(delivery=Delivery(task_id="Task-1"))
        created = await play.create("mine", request=named)
        assert await play.store.find_task("tASK-1", TENANT) == created
        with pytest.raises(Conflict, match="Task-1"):
            await play.create("again", request=named)
        with pytest.raises(NotFound):
            await play.store.get_job("again", TENANT)
        await play.store.create_job("theirs", "other", named, R2V)
        assert (await play.store.find_task("task-1", "other")).id == "theirs"
        await play.store.delete_job("mine", TENANT)
        for name, tenant in (("task-1", TENANT), ("task-1", "third"), ("task-2", "other")):
            with pytest.raises(NotFound, match="does not exist"):
                await play.store.find_task(name, tenant)
        with pytest.raises(Conflict):  # the name of a deleted job stays taken
            await play.create("new", request=named)

    async def test_foreign_deleted_and_unknown_jobs_look_the_same(self, play: Play) -> None:
        await play.create("mine")
        await play.create("deleted")
        await play.store.delete_job("deleted", TENANT)
        for job_id, tenant in (("mine", "other"), ("deleted", TENANT), ("unknown", TENANT)):
            for call in (play.store.get_job, play.store.cancel_job, play.store.delete_job, play.store.events):
                with pytest.raises(NotFound, match="does not exist"):
                    await call(job_id, tenant)
        assert (await play.job("mine")).state is JobState.QUEUED
        assert [job.id for job in (await play.store.list_jobs(TENANT)).jobs] == ["mine"]
        assert not (await play.store.list_jobs("other")).jobs

    @pytest.mark.parametrize("newest_first", [True, False])
    async def test_pages_are_whole_and_stable_while_jobs_arrive(self, play: Play, newest_first: bool) -> None:
        names = [f"j{index}" for index in range(7)]
        for name in names:
            await play.create(name)
        seen: list[str] = []
        after = None
        while True:
            page = await play.store.list_jobs(TENANT, after=after, limit=3, newest_first=newest_first)
            seen += [job.id for job in page.jobs]
            if not page.has_more:
                break
            after = seen[-1]
            await play.create(f"late{len(seen)}")
            await play.store.delete_job(after, TENANT)
        assert seen == (names[::-1] if newest_first else [*names, "late3", "late6"])

    async def test_after_must_be_a_job_of_the_tenant(self, play: Play) -> None:
        await play.create()
        for tenant, after in ((TENANT, "unknown"), ("other", "j1")):
            with pytest.raises(NotFound):
                await play.store.list_jobs(tenant, after=after)

    async def test_listing_by_state_merges_states_in_creation_order(self, play: Play) -> None:
        for name in ("a", "b", "c", "d"):
            await play.create(name)
        await play.take("text", "b")
        await play.store.cancel_job("c", TENANT)
        ended = (JobState.RUNNING, JobState.CANCELLED, JobState.RUNNING)
        page = await play.store.list_jobs(TENANT, states=ended, limit=1)
        assert ([job.id for job in page.jobs], page.has_more) == (["c"], True)
        page = await play.store.list_jobs(TENANT, states=ended, limit=1, after="c")
        assert ([job.id for job in page.jobs], page.has_more) == (["b"], False)
        page = await play.store.list_jobs(TENANT, states=ended, limit=1, newest_first=False)
        assert ([job.id for job in page.jobs], page.has_more) == (["b"], True)

    async def test_counts_are_of_visible_jobs_of_every_tenant(self, play: Play) -> None:
        assert await play.store.count_jobs() == dict.fromkeys(JobState, 0)
        for name in ("a", "b", "hidden"):
            await play.create(name)
        await play.store.create_job("c", "other", request(), R2V)
        await play.take("text", "a")
        await play.store.delete_job("hidden", TENANT)
        assert await play.store.count_jobs() == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 2, JobState.RUNNING: 1}

    async def test_running_stages_tell_worker_and_step(self, play: Play) -> None:
        await play.create("a")
        work = await play.take("text", "a")
        await play.dispatch("condition", "a")
        await play.store.heartbeat("w1", [Beat(work.call, 2, 8)], 10)
        (call,) = await play.store.running()
        assert (call.ref, call.attempt, call.step, call.steps) == (work.call.ref, 1, 2, 8)
        await play.store.complete(work.call, outputs("text"))
        assert await play.store.running() == []

    async def test_unknown_jobs_are_those_nobody_ever_created(self, play: Play) -> None:
        await play.create("a")
        await play.create("hidden")
        await play.store.delete_job("hidden", TENANT)
        names = ["a", "hidden", *(f"orphan-{n}" for n in range(1200))]
        assert await play.store.unknown_jobs(names) == names[2:]
        assert await play.store.unknown_jobs([]) == []

    async def test_cancel_stops_the_worker_and_keeps_its_late_result_out(self, play: Play) -> None:
        await play.create()
        call = (await play.take("text")).call
        waiting = await play.dispatch("condition")
        job = await play.store.cancel_job("j1", TENANT, reason=Failure("cancelled", "By the client."))
        assert (job.state, job.phase, job.failure) == (
            JobState.CANCELLED,
            "cancelled",
            Failure("cancelled", "By the client."),
        )
        assert {status.state for status in job.stages} == {StageState.CANCELLED}
        before = await play.everything()
        assert await play.store.verdicts([call]) == {call.ref: Verdict.CANCELLED}
        assert await play.store.heartbeat("w1", [Beat(call, 1, 2)], LEASE_S) == {call.ref: Verdict.CANCELLED}
        assert await play.store.claim(waiting, "w2", LEASE_S) is None
        with pytest.raises(StaleEpoch):
            await play.store.complete(call, outputs("text"))
        assert await play.everything() == before
        assert not (await play.store.state(worker_ttl_s=60)).ready

    async def test_a_terminal_job_is_cancelled_in_vain(self, play: Play) -> None:
        await play.create()
        done = await play.published()
        assert await play.store.cancel_job("j1", TENANT) == done

    async def test_delete_cancels_and_returns_the_job_it_hid(self, play: Play) -> None:
        await play.create()
        call = (await play.take("text")).call
        assert (await play.store.delete_job("j1", TENANT)).state is JobState.CANCELLED
        assert await play.store.verdicts([call]) == {call.ref: Verdict.CANCELLED}

    async def test_the_log_tells_the_whole_story(self, play: Play) -> None:
        await play.create()
        await play.published()
        events = await play.log()
        told = [(event.type, event.data.get("state"), event.data.get("stage")) for event in events]
        assert told[0] == ("created", "queued", None)
        assert [state for kind, state, _ in told if kind == "state"] == ["running", "publishing", "done"]
        for stage in ("text", "condition", "denoise", "decode"):
            moves = [state for kind, state, name in told if kind == "stage" and name == stage]
            assert moves == ["ready", "dispatched", "claimed", "done"]
        assert [e.data["phase"] for e in events if e.type == "phase"][:3] == ["text", "waiting", "condition"]
        assert all(e.data["seconds"] >= 0 for e in events if e.data.get("state") in {"dispatched", "claimed"})
        assert told[-1] == ("state", "done", None)
        assert await play.store.events("j1", TENANT, after=5) == events[5:]

    async def test_a_failed_job_tells_why_before_its_last_event(self, play: Play) -> None:
        await play.create()
        call = (await play.take("text")).call
        await play.store.fail(call, BROKEN, retryable=False, max_failures=2)
        *_, failed, state = await play.log()
        assert (failed.type, failed.data) == ("failed", {"code": BROKEN.code, "message": BROKEN.message})
        assert (state.type, state.data["state"]) == ("state", "failed")
