"""The contract suite: the feed of events, the outbox, the webhook secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from cluster.deliveries import Outcome, Parcel, ParcelKind, ParcelState
from cluster.errors import Conflict, NotFound
from cluster.records import Delivery, Dialect, Failure, JobState, Request
from cluster.store.base import JobStore
from cluster.wiring import graph
from tests.unit.cluster.makers import ARTIFACT, request
from tests.unit.cluster.store.play import TENANT, Play, outputs

HOOK = "https://Receiver.example/hook?token=abc"
BUCKET = "https://bucket.example:8443/put"
DELIVERED = Outcome(ParcelState.DELIVERED, 204)
DEAD = Outcome(ParcelState.DEAD, 500, "answered with status 500")
NOW = Outcome(ParcelState.PENDING, 503, "answered with status 503")
LATER = replace(NOW, delay_s=600.0)


def telling(url: str = HOOK, **changes: object) -> Request:
    return request(delivery=replace(Delivery(webhook_url=url), **changes))  # type: ignore[arg-type]


async def claim(
    store: JobStore,
    limit: int = 100,
    per_host: int = 100,
    lease_s: float = 600.0,
    room: Mapping[str, int] | None = None,
) -> Sequence[Parcel]:
    return await store.claim_parcels(limit=limit, per_host=per_host, lease_s=lease_s, room=room or {})


async def failing(play: Play, *jobs: str, url: str = HOOK) -> None:
    """Jobs that owe one webhook each, in this order."""
    for job_id in jobs:
        await play.create(job_id, telling(url))
        await play.store.fail_job(play.leadership, job_id, Failure("broken", "It broke."))


class OutboxContract:
    """What is owed is written with its event, sent at least once and settled once."""

    async def test_a_job_owes_its_webhook_from_its_last_event_on(self, play: Play) -> None:
        await play.create(request=telling())
        assert not await claim(play.store)
        await play.published()
        log = await play.log()
        (parcel,) = await claim(play.store)
        assert (parcel.job_id, parcel.tenant_id, parcel.seq) == ("j1", TENANT, log[-1].seq)
        assert (parcel.kind, parcel.url, parcel.host) == (ParcelKind.WEBHOOK, HOOK, "receiver.example:443")
        assert (parcel.state, parcel.epoch, parcel.attempts, parcel.result) == (ParcelState.SENDING, 1, 1, None)
        subject = await play.store.parcel_subject(parcel)
        assert subject is not None
        assert subject == (await play.job(), log[-1])

    async def test_who_asked_for_nothing_is_owed_nothing(self, play: Play) -> None:
        await play.create()
        await play.published()
        assert not await claim(play.store)

    @pytest.mark.parametrize("end", ["failed", "cancelled", "expired"])
    async def test_every_end_is_told(self, play: Play, end: str) -> None:
        deadline_s = 1e-6 if end == "expired" else None
        await play.create(request=replace(telling(), deadline_s=deadline_s))
        if end == "failed":
            await play.store.fail_job(play.leadership, "j1", Failure("broken", "It broke."))
        elif end == "cancelled":
            await play.store.cancel_job("j1", TENANT)
        else:
            await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=1)
        assert (await play.job()).state.value == end
        assert len(await claim(play.store)) == 1

    async def test_a_deleted_job_owes_nothing(self, play: Play) -> None:
        await failing(play, "waiting", "claimed")
        parcels = {parcel.job_id: parcel for parcel in await claim(play.store)}
        await play.store.settle_parcel(parcels["waiting"], NOW)
        for job_id in ("waiting", "claimed"):
            await play.store.delete_job(job_id, TENANT)
        assert not await claim(play.store)
        assert await play.store.parcel_subject(parcels["claimed"]) is None
        assert not await play.store.settle_parcel(parcels["claimed"], DELIVERED)
        assert not (await play.store.parcels(None)).parcels

    async def test_runware_is_told_of_each_result_and_of_a_bad_end(self, play: Play) -> None:
        await play.create("good", telling(dialect=Dialect.RUNWARE))
        await play.published("good")
        await play.create("bad", telling(dialect=Dialect.RUNWARE))
        await play.store.fail_job(play.leadership, "bad", Failure("broken", "It broke."))
        parcels = {parcel.job_id: parcel for parcel in await claim(play.store)}
        assert {job_id: parcel.result for job_id, parcel in parcels.items()} == {"good": 0, "bad": None}
        subject = await play.store.parcel_subject(parcels["good"])
        assert subject is not None
        assert (subject[1].type, subject[1].data["index"]) == ("result", 0)

    async def test_each_of_several_results_is_told_when_it_is_published(self, play: Play) -> None:
        await play.create("several", replace(telling(dialect=Dialect.RUNWARE), n=2), graph("r2v", 2))
        await play.until("denoise", "several")
        for index in (1, 0):
            for stage, artifact in (("denoise", None), ("decode", ARTIFACT)):
                call = (await play.take(stage, "several", result=index)).call
                await play.store.complete(call, outputs(stage), artifact)
            (parcel,) = await claim(play.store)
            assert parcel.result == index
        assert (await play.job("several")).state is JobState.DONE
        assert not await claim(play.store)

    @pytest.mark.parametrize("dialect", list(Dialect))
    @pytest.mark.parametrize("end", [DELIVERED, DEAD])
    async def test_the_webhook_waits_until_the_upload_is_settled(
        self, play: Play, dialect: Dialect, end: Outcome
    ) -> None:
        await play.create(request=telling(upload_url=BUCKET, dialect=dialect))
        await play.published()
        (upload,) = await claim(play.store)
        assert (upload.kind, upload.result, upload.host) == (ParcelKind.UPLOAD, 0, "bucket.example:8443")
        await play.store.settle_parcel(upload, NOW)
        (upload,) = await claim(play.store)
        assert upload.kind is ParcelKind.UPLOAD
        await play.store.settle_parcel(upload, end)
        (webhook,) = await claim(play.store)
        assert webhook.kind is ParcelKind.WEBHOOK

    async def test_two_claims_never_share_a_parcel(self, play: Play) -> None:
        await failing(play, *(f"j{index}" for index in range(6)))
        claims = await asyncio.gather(*(claim(play.store) for _ in range(4)))
        ids = [parcel.id for parcels in claims for parcel in parcels]
        assert len(ids) == len(set(ids)) == 6

    async def test_what_its_sender_dropped_is_due_again_and_the_sender_is_fenced(self, play: Play) -> None:
        await failing(play, "j1")
        (first,) = await claim(play.store, lease_s=0)
        (second,) = await claim(play.store)
        assert (second.id, second.attempts) == (first.id, 2)
        assert not await play.store.settle_parcel(first, DELIVERED)
        await play.store.renew_parcels([first], 0)
        assert not await claim(play.store)
        await play.store.renew_parcels([second], 0)
        (third,) = await claim(play.store)
        assert await play.store.settle_parcel(third, DELIVERED)
        assert not await play.store.settle_parcel(third, DEAD)
        assert [parcel.state for parcel in (await play.store.parcels(TENANT)).parcels] == [ParcelState.DELIVERED]

    async def test_a_failed_attempt_is_due_after_its_delay(self, play: Play) -> None:
        await failing(play, "j1")
        (parcel,) = await claim(play.store)
        await play.store.settle_parcel(parcel, LATER)
        assert not await claim(play.store)
        (shown,) = (await play.store.parcels(TENANT)).parcels
        assert (shown.state, shown.last_status, shown.last_error) == (ParcelState.PENDING, 503, LATER.error)
        assert (shown.next_at - shown.created_at).total_seconds() >= 600
        assert shown.settled_at is None

    async def test_no_host_hides_another(self, play: Play) -> None:
        await failing(play, *(f"flood{index}" for index in range(8)), url="http://a.example/")
        await failing(play, "b", url="http://b.example/")
        await failing(play, "c", url="http://c.example/")
        room = {"a.example:80": 0, "c.example:80": 0}
        assert [parcel.job_id for parcel in await claim(play.store, room=room)] == ["b"]
        found = await claim(play.store, limit=4, per_host=3)
        assert sorted(parcel.job_id for parcel in found) == ["c", "flood0", "flood1", "flood2"]
        (one,) = await claim(play.store, per_host=3, room={"a.example:80": 1})
        assert one.job_id == "flood3"

    async def test_dead_letters_are_listed_and_sent_again(self, play: Play) -> None:
        await failing(play, "a", "b", "c")
        parcels = await claim(play.store)
        for parcel, outcome in zip(parcels, (DEAD, DELIVERED, DEAD), strict=True):
            await play.store.settle_parcel(parcel, outcome)
        dead = [ParcelState.DEAD]
        page = await play.store.parcels(TENANT, states=dead, limit=1)
        assert [parcel.job_id for parcel in page.parcels] == ["c"]
        assert page.has_more
        rest = await play.store.parcels(TENANT, states=dead, after=page.parcels[0].id)
        assert [parcel.job_id for parcel in rest.parcels] == ["a"]
        assert not rest.has_more
        assert not (await play.store.parcels("other")).parcels
        assert len((await play.store.parcels(None, job_id="b")).parcels) == 1
        letter = rest.parcels[0]
        with pytest.raises(NotFound):
            await play.store.resend_parcel(letter.id, "other")
        with pytest.raises(NotFound):
            await play.store.parcels("other", after=letter.id)
        again = await play.store.resend_parcel(letter.id, TENANT)
        assert (again.state, again.attempts, again.settled_at) == (ParcelState.PENDING, 0, None)
        with pytest.raises(Conflict):
            await play.store.resend_parcel(letter.id, TENANT)
        (sending,) = await claim(play.store)
        assert (sending.id, sending.attempts) == (letter.id, 1)
        assert not await play.store.settle_parcel(parcels[0], DELIVERED)  # the epoch of before

    async def test_backlog_counts_what_is_not_delivered(self, play: Play) -> None:
        await failing(play, "a", "b", "c", "d")
        parcels = await claim(play.store, limit=3)
        await play.store.settle_parcel(parcels[0], DEAD)
        await play.store.settle_parcel(parcels[1], DELIVERED)
        backlog = await play.store.backlog()
        webhooks = {state: count for (kind, state), count in backlog.counts.items() if kind is ParcelKind.WEBHOOK}
        assert webhooks == {ParcelState.PENDING: 1, ParcelState.SENDING: 1, ParcelState.DEAD: 1}
        assert backlog.oldest_due_s >= 0
        await play.store.settle_parcel(parcels[2], LATER)
        await claim(play.store)
        assert (await play.store.backlog()).oldest_due_s == 0

    async def test_settled_parcels_go_with_the_results_or_after_their_time(self, play: Play) -> None:
        await failing(play, "swept", "kept", "tried")
        swept, kept, tried = await claim(play.store)
        await play.store.settle_parcel(swept, DEAD)
        await play.store.settle_parcel(kept, DELIVERED)
        await play.store.settle_parcel(tried, LATER)
        for job_id in ("swept", "tried"):
            await play.store.swept(job_id, results=True)
        await play.store.purge_parcels(600)
        assert {parcel.id for parcel in (await play.store.parcels(TENANT)).parcels} == {kept.id, tried.id}
        await play.store.purge_parcels(0)
        assert [parcel.id for parcel in (await play.store.parcels(TENANT)).parcels] == [tried.id]

    async def test_each_tenant_has_a_secret_of_its_own(self, store: JobStore) -> None:
        asked = await asyncio.gather(*(store.webhook_secrets(TENANT) for _ in range(4)))
        assert len({tuple(secrets) for secrets in asked}) == 1
        (first,) = asked[0]
        assert first.startswith("whsec_")
        assert list(await store.webhook_secrets("other")) != [first]

    async def test_a_rotated_secret_signs_for_a_while(self, store: JobStore) -> None:
        (first,) = await store.webhook_secrets(TENANT)
        second, old = await store.rotate_webhook_secret(TENANT, overlap_s=600)
        assert old == first != second
        assert list(await store.webhook_secrets(TENANT)) == [second, first]
        third, *others = await store.rotate_webhook_secret(TENANT, overlap_s=0)
        assert others == [first]  # the one before ended at once, the first has its time
        assert third not in {first, second}

    async def test_the_feed_is_every_watched_job_in_one_reading(self, play: Play) -> None:
        for job_id in ("a", "b", "gone"):
            await play.create(job_id)
        await play.store.delete_job("gone", TENANT)
        log = await play.log("a")
        cursors = {"a": 0, "b": len(await play.log("b")), "gone": 0, "never": 0}
        found = await play.store.feed(cursors)
        assert {job_id: list(events) for job_id, events in found.items()} == {"a": list(log), "b": []}
        assert list((await play.store.feed({"a": 1}, limit=1))["a"]) == list(log[1:2])
        many = dict.fromkeys((f"x{index}" for index in range(1000)), 0) | {"b": 0}
        assert list(await play.store.feed(many)) == ["b"]
