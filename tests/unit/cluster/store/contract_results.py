"""The contract suite: several results of one job, which share what does not depend on the seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from cluster.errors import StaleEpoch
from cluster.records import (
    Artifact,
    Beat,
    Delivery,
    Extension,
    Failure,
    JobState,
    Rendition,
    StageCall,
    StageRef,
    StageState,
    Verdict,
)
from cluster.wiring import graph
from tests.unit.cluster.makers import ARTIFACT, handle, request, worker
from tests.unit.cluster.store.contract_segments import segment
from tests.unit.cluster.store.play import LEASE_S, R2V, TENANT, Play

LOST = Failure("worker_lost", "The worker of this stage died.")
BROKEN = Failure("non_finite", "The latents became NaN.")
THREE = graph("r2v", 3)


def file(result: int) -> Artifact:
    picture = Rendition(f"file:///out/{result}.webp", "image/webp", 99, "ef" * 32, 112, 64)
    return replace(ARTIFACT, uri=f"file:///out/{result}.mp4", sha256=f"{result}" * 64, thumbnail=picture)


async def begin(play: Play, **changes: object) -> None:
    """A job of three results that is encoded."""
    await play.create(request=request(n=3, **changes), graph=THREE)
    await play.finish("text")
    await play.finish("condition")


async def denoise(play: Play, result: int) -> None:
    call = (await play.take("denoise", result=result)).call
    await play.store.complete(call, {"latents": handle(f"denoise.{result}")})


async def decode(play: Play, result: int) -> StageCall:
    call = (await play.take("decode", result=result)).call
    await play.store.complete(call, {"video": handle(f"decode.{result}")}, file(result))
    return call


class ResultContract:
    """One encode, n denoises and decodes, each under a lease of its own."""

    async def test_what_depends_on_no_seed_exists_once(self, play: Play) -> None:
        job = await play.create(request=request(n=3, seed=2**32 - 2), graph=THREE)
        assert Counter(status.stage for status in job.stages) == {"text": 1, "condition": 1, "denoise": 3, "decode": 3}
        assert [(result.index, result.seed, result.artifact) for result in job.results] == [
            (0, 2**32 - 2, None),
            (1, 2**32 - 1, None),
            (2, 0, None),
        ]
        await play.finish("text")
        await play.finish("condition")
        ready = (await play.store.state(worker_ttl_s=60)).ready
        assert {item.ref for item in ready} == {StageRef("j1", "denoise", 0, result) for result in range(3)}
        assert {item.results for item in ready} == {3}

    async def test_the_graph_must_fit_the_request(self, play: Play) -> None:
        with pytest.raises(ValueError, match="3 results"):
            await play.create(request=request(n=3), graph=R2V)

    async def test_two_workers_take_two_results_at_once(self, play: Play) -> None:
        for name in ("g1", "g2"):
            await play.store.register(worker(name, denoise=1))
        await begin(play)
        first = await play.take("denoise", worker="g1", result=1)
        second = await play.take("denoise", worker="g2", result=2)
        assert first.inputs == second.inputs == {"context": handle("text.0"), "condition": handle("condition.0")}
        assert {call.worker: call.ref.result for call in await play.store.running()} == {"g1": 1, "g2": 2}
        beats = [Beat(work.call, 4, 8) for work in (first, second)]
        assert await play.store.heartbeat("g1", beats, LEASE_S) == {
            first.call.ref: Verdict.ALIVE,
            second.call.ref: Verdict.STALE,
        }
        await play.store.heartbeat("g2", beats[1:], LEASE_S)
        assert (await play.job()).progress == pytest.approx((0.05 + 2 * 0.4) / (0.05 + 3 * 0.95))

    async def test_each_result_is_published_when_it_is_made_and_the_job_when_all_are(self, play: Play) -> None:
        await begin(play)
        for result in range(3):
            await denoise(play, result)
        await decode(play, 2)
        job = await play.job()
        assert (job.state, [result.artifact for result in job.results]) == (JobState.RUNNING, [None, None, file(2)])
        await decode(play, 0)
        assert (await play.job()).state is JobState.RUNNING
        await decode(play, 1)
        job = await play.job()
        assert (job.state, job.progress) == (JobState.DONE, 1.0)
        assert [result.artifact for result in job.results] == [file(0), file(1), file(2)]
        log = await play.log()
        assert [event.data for event in log if event.type == "result"] == [{"index": 2}, {"index": 0}, {"index": 1}]
        states = [event.data["state"] for event in log if event.type == "state"]
        assert states == ["running", "publishing", "done"]
        decoded = [e.data["result"] for e in log if e.data.get("stage") == "decode" and e.data["state"] == "done"]
        assert decoded == [2, 0, 1]
        assert await play.store.result_uris("j1") == {uri for result in range(3) for uri in file(result).uris}

    async def test_one_result_that_fails_for_good_ends_the_job_and_spares_what_is_published(self, play: Play) -> None:
        await begin(play, delivery=Delivery(ttl_s=3600))
        for result in (0, 1):
            await denoise(play, result)
        await decode(play, 0)
        other = (await play.take("decode", result=1)).call
        broken = (await play.take("denoise", result=2)).call
        await play.store.fail(broken, BROKEN, retryable=False, max_failures=2)
        job = await play.job()
        assert (job.state, job.failure) == (JobState.FAILED, BROKEN)
        assert [result.artifact for result in job.results] == [file(0), None, None]
        assert job.finished_at is not None
        assert job.expires_at == job.finished_at + timedelta(seconds=3600)
        assert await play.store.verdicts([other]) == {other.ref: Verdict.CANCELLED}
        with pytest.raises(StaleEpoch):
            await play.store.complete(other, {"video": handle("late")}, file(1))
        assert (await play.job()) == job
        await play.log()
        assert await play.store.result_uris("j1") == file(0).uris

    async def test_a_cancel_in_the_middle_stops_every_result(self, play: Play) -> None:
        await begin(play)
        calls = [(await play.take("denoise", result=result)).call for result in (0, 2)]
        waiting = await play.dispatch("denoise", result=1)
        job = await play.store.cancel_job("j1", TENANT)
        assert {status.state for status in job.stages if status.stage not in {"text", "condition"}} == {
            StageState.CANCELLED
        }
        assert await play.store.verdicts(calls) == {call.ref: Verdict.CANCELLED for call in calls}
        assert await play.store.claim(waiting, "w1", LEASE_S) is None
        assert (await play.log())[-1].data["state"] == "cancelled"

    async def test_a_lost_worker_costs_its_own_result_only(self, play: Play) -> None:
        await begin(play)
        lost = (await play.take("denoise", worker="g1", result=0)).call
        kept = (await play.take("denoise", worker="g2", result=1)).call
        await play.store.save_snapshot(lost, handle("s0"), 3)
        await play.store.save_snapshot(kept, handle("s1"), 5)
        await play.store.lose(lost, LOST, max_losses=5)
        assert await play.store.verdicts([lost, kept]) == {lost.ref: Verdict.STALE, kept.ref: Verdict.ALIVE}
        again = await play.take("denoise", worker="g2", result=0)
        assert (again.call.epoch, again.attempt, again.snapshot) == (2, 2, handle("s0"))
        await play.store.complete(kept, {"latents": handle("denoise.1")})
        with pytest.raises(StaleEpoch):
            await play.store.complete(lost, {"latents": handle("late")})
        await play.store.complete(again.call, {"latents": handle("denoise.0")})
        assert (await play.take("decode", result=0)).inputs == {"latents": handle("denoise.0")}
        assert (await play.take("decode", result=1)).inputs == {"latents": handle("denoise.1")}
        assert (await play.job()).attempts == 1

    async def test_every_result_has_a_preview_of_its_own(self, play: Play) -> None:
        await begin(play)
        calls = {}
        for result in (0, 1):
            await denoise(play, result)
            calls[result] = (await play.take("decode", result=result)).call
            await play.store.add_segment(calls[result], segment(0, f"of{result}"))
        await play.store.add_segment(calls[1], segment(1, "of1"))
        assert await play.store.segments("j1", TENANT) == {0: [segment(0, "of0")]}
        assert await play.store.segments("j1", TENANT, 1) == {0: [segment(0, "of1"), segment(1, "of1")]}
        assert await play.store.segments("j1", TENANT, 2) == {}
        await play.store.lose(calls[1], LOST, max_losses=5)
        calls[1] = (await play.take("decode", result=1)).call
        await play.store.add_segment(calls[1], segment(0, "again"))
        await play.store.complete(calls[1], {"video": handle("v")}, file(1))
        assert await play.store.segments("j1", TENANT, 1) == {0: [segment(0, "again")]}
        assert await play.store.segments("j1", TENANT) == {0: [segment(0, "of0")]}
        mine = {
            segment(0, "of0").uri,
            segment(0, "of0").init_uri,
            segment(0, "again").uri,
            segment(0, "again").init_uri,
        }
        assert await play.store.result_uris("j1") == mine | file(1).uris

    async def test_what_became_of_a_prompt_is_the_jobs(self, play: Play) -> None:
        await play.create(request=request(prompt_extend=True), graph=graph("r2v+prompt", 1))
        assert (await play.job()).extension is None
        call = (await play.take("prompt")).call
        made = Extension("a red ball rolls slowly", None)
        handles = {"prompt": handle("prompt", "PromptText")}
        await play.store.complete(call, handles, extension=made)
        assert (await play.job()).extension == made
        await play.store.complete(call, handles)
        work = await play.take("text")
        assert work.inputs == handles
        await play.finish("condition")
        assert (await play.job()).extension == made
