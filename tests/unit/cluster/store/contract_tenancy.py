"""The contract suite: API keys, idempotency, limits, the ledger, and what the dispatch policy sees of tenants."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from cluster.errors import Conflict, LimitExceeded, NotFound, StaleEpoch
from cluster.records import Beat, Failure, Job, StageRef
from cluster.store import open_store
from cluster.store.base import JobStore
from cluster.tenancy import Limits, Once, TenantLimits
from tests.unit.cluster.makers import handle, request
from tests.unit.cluster.store.play import LEASE_S, R2V, TENANT, Play, outputs

LOST = Failure("worker_lost", "The worker of this stage died.")
BROKEN = Failure("non_finite", "The latents became NaN.")
ONCE = Once("retry-1", "fingerprint")


async def ledger(store: JobStore, **bounds: Any) -> list[dict[str, Any]]:
    return [row async for page in store.usage_rows(**bounds) for row in page]


async def charged(store: JobStore, **bounds: Any) -> list[dict[str, Any]]:
    return [row async for page in store.charge_rows(**bounds) for row in page]


async def totals(store: JobStore, tenant: str = TENANT) -> dict[str, tuple[float, float, int]]:
    return {item.stage: (item.useful_s, item.wasted_s, item.done) for item in (await store.usage(tenant)).stages}


class KeyContract:
    """API keys."""

    async def test_a_key_is_found_by_its_hash_until_it_is_revoked(self, play: Play) -> None:
        key = await play.store.create_key("acme", "ci", "aa" * 32)
        boss = await play.store.create_key("ops", "boss", "bb" * 32, admin=True)
        assert await play.store.find_key("aa" * 32) == key
        assert (key.tenant_id, key.name, key.admin, boss.admin) == ("acme", "ci", False, True)
        assert [item.id for item in await play.store.list_keys()] == [key.id, boss.id]
        assert [item.id for item in await play.store.list_keys("ops")] == [boss.id]
        await play.store.revoke_key(key.id)
        await play.store.revoke_key(key.id)
        assert await play.store.find_key("aa" * 32) is None
        assert (await play.store.list_keys("acme"))[0].revoked_at is not None
        with pytest.raises(NotFound, match="key_nothing"):
            await play.store.revoke_key("key_nothing")

    async def test_the_last_use_is_coarse(self, play: Play) -> None:
        key = await play.store.create_key("acme", "ci", "aa" * 32)
        await play.store.key_used(key.id)
        (seen,) = await play.store.list_keys()
        assert seen.last_used_at is not None
        await play.store.key_used(key.id)
        assert await play.store.list_keys() == [seen]


class IdempotencyContract:
    """One job per key and request."""

    async def test_the_same_key_and_request_is_the_same_job(self, play: Play) -> None:
        first = await play.create("j1", once=ONCE)
        assert await play.create("j2", once=ONCE) == first
        assert await play.store.replayed(TENANT, ONCE) == first
        assert [job.id for job in (await play.store.list_jobs(TENANT)).jobs] == ["j1"]
        assert await play.store.replayed(TENANT, Once("other", "fingerprint")) is None

    async def test_another_request_with_the_key_is_refused(self, play: Play) -> None:
        await play.create("j1", once=ONCE)
        other = Once(ONCE.key, "another request")
        for call in (play.create("j2", once=other), play.store.replayed(TENANT, other)):
            with pytest.raises(Conflict, match="another request"):
                await call
        assert [job.id for job in (await play.store.list_jobs(TENANT)).jobs] == ["j1"]

    async def test_keys_of_different_tenants_have_nothing_in_common(self, play: Play) -> None:
        await play.create("j1", once=ONCE)
        theirs = await play.store.create_job("j2", "other", request(), R2V, once=Once(ONCE.key, "x"))
        assert theirs.id == "j2"

    async def test_a_deleted_job_is_not_made_again_unasked(self, play: Play) -> None:
        await play.create("j1", once=ONCE)
        await play.store.delete_job("j1", TENANT)
        with pytest.raises(Conflict, match="deleted"):
            await play.create("j2", once=ONCE)

    async def test_a_replay_is_not_held_to_the_limits(self, play: Play) -> None:
        limits = TenantLimits(requests_per_minute=1)
        await play.create("j1", once=ONCE, limits=limits)
        assert (await play.create("j2", once=ONCE, limits=limits)).id == "j1"

    async def test_a_race_makes_one_job(self, play: Play, store_url: str) -> None:
        stores = [open_store(store_url) for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        made = await asyncio.gather(
            *(
                store.create_job(f"j{s}-{n}", TENANT, request(), R2V, once=ONCE)
                for s, store in enumerate(stores)
                for n in range(5)
            )
        )
        assert len({job.id for job in made}) == 1
        assert len((await play.store.list_jobs(TENANT)).jobs) == 1
        await asyncio.gather(*(store.close() for store in stores))


class LimitContract:
    """What a tenant may have."""

    async def test_requests_per_minute_count_deleted_jobs_too(self, play: Play) -> None:
        limits = TenantLimits(requests_per_minute=2)
        await play.create("a", limits=limits)
        await play.create("b", limits=limits)
        await play.store.delete_job("a", TENANT)
        with pytest.raises(LimitExceeded, match="2 requests per minute") as refused:
            await play.create("c", limits=limits)
        assert 0 < refused.value.retry_after_s <= 60
        assert (await play.store.create_job("d", "other", request(), R2V, limits=limits)).id == "d"

    async def test_queued_jobs_are_limited_until_one_begins(self, play: Play) -> None:
        limits = TenantLimits(queued=2)
        await play.create("a", limits=limits)
        await play.create("b", limits=limits)
        with pytest.raises(LimitExceeded, match="2 videos are queued") as refused:
            await play.create("c", limits=limits)
        assert refused.value.retry_after_s > 0
        await play.take("text", "a")
        assert (await play.create("c", limits=limits)).id == "c"

    async def test_a_limit_holds_over_many_connections(self, play: Play, store_url: str) -> None:
        stores = [open_store(store_url) for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        limits = TenantLimits(queued=3)

        async def ask(store: JobStore, name: str) -> Job | LimitExceeded:
            try:
                return await store.create_job(name, TENANT, request(), R2V, limits=limits)
            except LimitExceeded as error:
                return error

        found = await asyncio.gather(*(ask(store, f"j{s}-{n}") for s, store in enumerate(stores) for n in range(3)))
        assert sum(isinstance(item, Job) for item in found) == 3
        await asyncio.gather(*(store.close() for store in stores))

    async def test_device_seconds_per_day(self, play: Play) -> None:
        limits = TenantLimits(device_seconds_per_day=10)
        await play.create("a", limits=limits)
        call = (await play.take("text", "a")).call
        await play.create("b", limits=limits)
        await play.store.complete(call, outputs("text"), busy_s=10.0)
        with pytest.raises(LimitExceeded, match="10 device-seconds") as refused:
            await play.create("c", limits=limits)
        assert 22 * 3600 < refused.value.retry_after_s <= 24 * 3600

    async def test_only_jobs_in_progress_go_on_under_the_limit(self, play: Play) -> None:
        limits = Limits(default=TenantLimits(running=1))
        await play.create("old")
        await play.create("begun")
        for index in range(8):
            await play.create(f"urgent{index}", request(priority=5))
        await play.take("text", "begun")
        state = await play.store.state(worker_ttl_s=60, ready_limit=1, limits=limits)
        begun = {item.ref for item in state.ready if item.begun}
        assert begun == {StageRef("begun", "condition")}  # however far back it stands
        assert state.loads[TENANT].running == 1
        free = await play.store.state(worker_ttl_s=60, ready_limit=1)
        assert not any(item.begun for item in free.ready)

    async def test_a_flood_hides_no_tenant(self, play: Play) -> None:
        for index in range(8):
            await play.create(f"flood{index}", request(priority=5))
        for tenant in ("a", "zz"):
            for index in range(8):
                await play.store.create_job(f"{tenant}{index}", tenant, request(), R2V)
        for index in range(8, 16):
            await play.create(f"flood{index}", request(priority=5))
        state = await play.store.state(worker_ttl_s=60, ready_limit=2)
        heads = {item.ref.job_id for item in state.ready if item.ref.stage == "text"}
        assert {"a0", "a1", "a2", "a3", "zz0", "zz1", "zz2", "zz3"} <= heads
        assert len(heads) < 16
        assert state.loads.keys() == {TENANT, "a", "zz"}


class LedgerContract:
    """What attempts cost."""

    async def test_a_finished_attempt_is_useful_on_all_its_devices(self, play: Play) -> None:
        await play.create()
        call = await play.dispatch("text")
        await play.store.claim(call, "w1", LEASE_S, devices=4)
        await play.store.heartbeat("w1", [Beat(call, 1, 2, busy_s=1.5)], LEASE_S)
        assert await ledger(play.store) == []
        await play.store.complete(call, outputs("text"), busy_s=2.0)
        (row,) = await ledger(play.store)
        assert (row["job_id"], row["stage"], row["chunk"], row["epoch"]) == ("j1", "text", 0, call.epoch)
        assert (row["devices"], row["useful_s"], row["wasted_s"], row["outcome"]) == (4, 8.0, 0.0, "done")
        assert (row["tenant_id"], row["worker"], row["model"]) == (TENANT, "w1", request().model)
        assert await totals(play.store) == {"text": (8.0, 0.0, 1)}

    async def test_a_lost_attempt_keeps_what_its_snapshot_holds(self, play: Play) -> None:
        await play.create()
        await play.until("denoise")
        call = (await play.take("denoise")).call
        await play.store.save_snapshot(call, handle("snap"), 3, busy_s=3.0)
        await play.store.heartbeat("w1", [Beat(call, 5, 8, busy_s=5.0)], LEASE_S)
        await play.store.lose(call, LOST, max_losses=3)
        again = (await play.take("denoise")).call
        await play.store.lose(call, LOST, max_losses=3)  # stale: the attempt is accounted already
        await play.store.release(again, busy_s=1.0)
        rows = [row for row in await ledger(play.store) if row["stage"] == "denoise"]
        assert [(r["outcome"], r["reason"], r["useful_s"], r["wasted_s"]) for r in rows] == [
            ("lost", "worker_lost", 3.0, 2.0),
            ("released", None, 0.0, 1.0),
        ]
        assert (await totals(play.store))["denoise"] == (3.0, 3.0, 0)

    async def test_what_ends_with_its_job_is_wasted(self, play: Play) -> None:
        for job_id in ("cancelled", "failed", "lost", "late"):
            await play.create(job_id, request(deadline_s=0.0 if job_id == "late" else None))
            call = (await play.take("text", job_id)).call
            await play.store.save_snapshot(call, handle("snap"), 1, busy_s=1.0)
            await play.store.heartbeat("w1", [Beat(call, 2, 8, busy_s=2.0)], LEASE_S)
            if job_id == "cancelled":
                await play.store.cancel_job(job_id, TENANT)
            elif job_id == "failed":
                await play.store.fail(call, BROKEN, retryable=False, max_failures=2, busy_s=2.0)
            elif job_id == "lost":
                await play.store.lose(call, LOST, max_losses=1)
            else:
                await play.store.reap(play.leadership, dispatch_ttl_s=60, max_losses=2)
            with pytest.raises(StaleEpoch):
                await play.store.complete(call, outputs("text"), busy_s=9.0)
        rows = await ledger(play.store)
        assert {r["job_id"]: (r["outcome"], r["reason"], r["useful_s"], r["wasted_s"]) for r in rows} == {
            "cancelled": ("cancelled", None, 0.0, 2.0),
            "failed": ("failed", "non_finite", 0.0, 2.0),
            "lost": ("lost", "worker_lost", 0.0, 2.0),
            "late": ("expired", "deadline_exceeded", 0.0, 2.0),
        }

    async def test_a_call_that_nobody_claimed_costs_nothing(self, play: Play) -> None:
        await play.create()
        await play.dispatch("text")
        await play.store.reap(play.leadership, dispatch_ttl_s=0, max_losses=2)
        await play.dispatch("text")
        await play.store.cancel_job("j1", TENANT)
        assert await ledger(play.store) == []

    async def test_a_published_result_is_charged_once_and_exactly(self, play: Play) -> None:
        await play.create(price_usd=Decimal("0.07"))
        assert (await play.job()).cost_usd == 0
        await play.published()
        assert (await play.job()).cost_usd == Decimal("0.07")
        (row,) = await charged(play.store)
        assert (row["job_id"], row["index"], row["tenant_id"], row["micro_usd"]) == ("j1", 0, TENANT, 70_000)
        found = await play.store.usage(TENANT)
        assert (found.results, found.video_s, found.charged_usd) == (1, 1, Decimal("0.07"))
        assert (await play.store.usage("other")).charged_usd == 0

    async def test_a_failed_job_is_not_charged(self, play: Play) -> None:
        await play.create(price_usd=Decimal("0.07"))
        await play.until("decode")
        await play.store.fail((await play.take("decode")).call, BROKEN, retryable=False, max_failures=2)
        assert await charged(play.store) == []

    async def test_the_ledger_is_read_by_tenant_and_time(self, play: Play) -> None:
        await play.create("a")
        await play.finish("text", "a")
        await play.store.create_job("b", "other", request(), R2V)
        await play.finish("text", "b")
        now = await play.store.now()
        hour = timedelta(hours=1)
        assert [row["job_id"] for row in await ledger(play.store)] == ["a", "b"]
        assert [row["job_id"] for row in await ledger(play.store, tenant_id="other")] == ["b"]
        assert await ledger(play.store, since=now + hour) == []
        assert await ledger(play.store, until=now - hour) == []
        assert (await play.store.usage(TENANT, until=now - 2 * hour)).stages == ()

    async def test_fairness_sees_what_was_used_and_what_runs(self, play: Play) -> None:
        await play.create("a")
        await play.store.complete((await play.take("text", "a")).call, outputs("text"), busy_s=6.0)
        await play.create("b")
        await play.store.create_job("c", "other", request(), R2V)
        await play.take("text", "c")
        state = await play.store.state(worker_ttl_s=60)
        mine, theirs = state.loads[TENANT], state.loads["other"]
        assert (mine.used_s, dict(mine.held)) == (6.0, {})
        assert mine.served_at.keys() == {"text"}
        assert (theirs.used_s, dict(theirs.held)) == (0.0, {"text": 1})
        assert state.call_s == {"text": 6.0}


class TenancyContract(KeyContract, IdempotencyContract, LimitContract, LedgerContract):
    """Everything about tenants."""
