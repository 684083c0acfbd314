"""Metrics of the installation as a whole: what the job store has, and how it is scaled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from cluster.deliveries import Backlog
from cluster.records import JobState
from cluster.store.base import ClusterState
from deployments import instruments


class ClusterMetrics:
    """The whole installation as the job store has it. Told by the leader; who does not lead any more says zero, so the
    largest of all Schedulers' values is the true one.
    """

    def __init__(self) -> None:
        names = ("skyreels_stage_ready", "skyreels_stage_busy", "skyreels_stage_slots", "skyreels_queue_oldest_seconds")
        self._ready, self._busy, self._slots, self._oldest = map(instruments.Levels, names)
        self._telling = False
        self._jobs = instruments.Levels("skyreels_jobs")
        self._tenant_ready = instruments.Levels("skyreels_tenant_ready")
        self._tenant_load = instruments.Levels("skyreels_tenant_device_seconds")
        self._deliveries = instruments.Levels("skyreels_deliveries")
        self._oldest_due = instruments.Gauge("skyreels_delivery_oldest_due_seconds")

    def tell(self, state: ClusterState, jobs: Mapping[JobState, int], backlog: Backlog) -> None:
        """One reading of the store."""
        self._telling = True
        slots: Counter[str] = Counter()
        for worker in state.workers:
            slots.update(worker.slots)
        oldest = dict.fromkeys(slots, 0.0)
        for item in state.ready:
            waited_s = (state.now - item.ready_at).total_seconds()
            oldest[item.ref.stage] = max(oldest.get(item.ref.stage, 0.0), waited_s)
        none = dict.fromkeys(slots, 0)
        self._slots.set({(stage,): count for stage, count in slots.items()})
        self._ready.set({(stage,): n for stage, n in (none | Counter(i.ref.stage for i in state.ready)).items()})
        self._busy.set({(stage,): count for stage, count in (none | dict(state.busy)).items()})
        self._oldest.set({(stage,): seconds for stage, seconds in oldest.items()})
        self._jobs.set({(name.value,): count for name, count in jobs.items()})
        self._tenant_ready.set({(tenant,): n for tenant, n in Counter(i.tenant_id for i in state.ready).items()})
        self._tenant_load.set({(tenant,): load.used_s for tenant, load in state.loads.items()})
        self._deliveries.set({(kind.value, name.value): n for (kind, name), n in backlog.counts.items()})
        self._oldest_due.set(backlog.oldest_due_s)

    def forget(self) -> None:
        """Somebody else tells, if this one has told anything."""
        if not self._telling:
            return
        self._telling = False
        for levels in (self._slots, self._ready, self._busy, self._oldest, self._jobs):
            levels.set({})
        for levels in (self._tenant_ready, self._tenant_load, self._deliveries):
            levels.set({})
        self._oldest_due.set(0.0)


class AutoscaleMetrics:
    """What scaling decided, and from how much work. Works in any process of Ray's."""

    def __init__(self) -> None:
        self._replicas = instruments.Gauge("skyreels_autoscale_replicas")
        self._backlog = instruments.Gauge("skyreels_autoscale_backlog_seconds")
        self._decisions = instruments.Counter("skyreels_autoscale_decisions_total")

    def decided(self, *, pool: str, replicas: int, direction: str, why: str, backlog_s: float) -> None:
        """One decision for one pool: `direction` up, down or hold; `why` is a word of the registry's domain."""
        self._replicas.set(replicas, tags={"pool": pool})
        self._backlog.set(backlog_s, tags={"pool": pool})
        self._decisions.inc(tags={"pool": pool, "direction": direction, "why": why})
