"""The job store's contract: what every backend promises, in the words of the lease protocol.

All times are the database's clock. Every write that a worker makes carries the stage's epoch; a write with an old
epoch raises StaleEpoch and changes nothing. Every write of the Scheduler carries its leadership term; a Scheduler
that has lost leadership gets StaleEpoch too. Every method raises Unavailable while the database cannot be reached.

The contract suite `tests/unit/cluster/store/contract.py` runs against each backend.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from cluster.files import FilePage, NewFile, UploadedFile
from cluster.graphs import StageGraph
from cluster.records import (
    Artifact,
    Beat,
    Event,
    Extension,
    Failure,
    Handle,
    Job,
    JobState,
    Request,
    SegmentFile,
    StageCall,
    StageRef,
    StageWork,
    Verdict,
    Worker,
)
from cluster.store.base_outbox import OutboxStore
from cluster.store.news import POLL_S, Topic, Watch
from cluster.store.tenancy import TenancyStore
from cluster.tenancy import UNLIMITED, Limits, Once, TenantLimits, TenantLoad


@dataclass(frozen=True, slots=True)
class Leadership:
    """A Scheduler's fenced claim to lead. `term` grows with every change of leader."""

    owner: str
    term: int


@dataclass(frozen=True, slots=True)
class ReadyStage:
    """A stage that may be dispatched now, with what policies rank by."""

    ref: StageRef
    model: str
    graph: str  # by name, of the job
    results: int  # of the job
    tenant_id: str
    priority: int
    deadline_at: datetime | None
    created_at: datetime  # of the job
    ready_at: datetime
    begun: bool = False  # whether the job is in progress; only told of tenants with a limit on those


@dataclass(frozen=True, slots=True)
class ClusterState:
    """One consistent reading for the dispatch policy."""

    now: datetime
    ready: Sequence[ReadyStage]
    workers: Sequence[Worker]  # seen within the worker time-to-live
    busy: Mapping[str, int]  # stage → rows DISPATCHED or CLAIMED
    leaving: Mapping[str, int] = field(default_factory=dict)  # of those, CLAIMED by workers that take no more calls
    held: Mapping[str, int] = field(default_factory=dict)  # worker → calls that it has claimed
    loads: Mapping[str, TenantLoad] = field(default_factory=dict)  # of every tenant with ready rows
    call_s: Mapping[str, float] = field(default_factory=dict)  # stage → mean device-seconds of a call, where known


@dataclass(frozen=True, slots=True)
class StageWorkload:
    """One stage's calls. `device_s`: the mean device-seconds of one, over the last hours; None when none ended."""

    stage: str
    ready: int = 0
    running: int = 0  # dispatched or claimed
    left: float = 0.0  # of the running ones, how many calls' worth is not done, by their steps
    device_s: float | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One consistent reading for the autoscaler."""

    stages: Sequence[StageWorkload]
    replicas: Mapping[str, int] = field(default_factory=dict)  # pool → live ones that take calls


@dataclass(frozen=True, slots=True)
class RunningStage:
    """A claimed stage, for status pages."""

    ref: StageRef
    worker: str
    attempt: int
    step: int
    steps: int
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A slice of a listing."""

    jobs: Sequence[Job]
    has_more: bool


class JobStore(OutboxStore, TenancyStore, Protocol):
    """Durable jobs, stages, events, workers and leadership; what is owed to receivers (`OutboxStore`); keys and the
    ledger (`TenancyStore`).
    """

    # -- lifecycle ---------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Connects and migrates the schema to this version (safe when several processes open at once)."""

    async def close(self) -> None:
        """Releases every connection."""

    async def now(self) -> datetime:
        """The database's clock, UTC."""

    def watch(self, topic: Topic, *, key: str | None = None, poll_s: float = POLL_S) -> Watch:
        """News of a topic, of one key or all, committed by anybody from now on: `watch.wait(timeout_s)`. While other
        processes' commits cannot be heard (SQLite; a lost connection), every wait ends after `poll_s`.
        """

    # -- clients -----------------------------------------------------------------------------------------------
    async def create_job(
        self,
        job_id: str,
        tenant_id: str,
        request: Request,
        graph: StageGraph,
        *,
        expires_at: datetime | None = None,
        once: Once | None = None,
        limits: TenantLimits = UNLIMITED,
        price_usd: Decimal = Decimal(0),
    ) -> Job:
        """Writes the job, its stage rows and its first events in one transaction; the job is QUEUED. It ends EXPIRED
        when it is not finished by `request.deadline_s` from now or by `expires_at`. `price_usd` is that of each result.

        With an idempotency key that has made a job already, that one is returned (its id is another) and nothing is
        written. Conflict when the id is taken, the key belongs to another request, or the tenant has used
        `request.delivery.task_id` before; LimitExceeded; ValueError when the graph is not of `request.n` results.
        """

    async def get_job(self, job_id: str, tenant_id: str) -> Job:
        """Raises NotFound for an unknown, deleted or foreign job."""

    async def find_task(self, task_id: str, tenant_id: str) -> Job:
        """The job that was created with this `delivery.task_id`, in any letter case. NotFound as `get_job`."""

    async def list_jobs(
        self,
        tenant_id: str,
        *,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
        states: Sequence[JobState] = (),
    ) -> Page:
        """Jobs in creation order; `after` is the last id of the previous page. Keyset paging: cost does not grow, and
        neither new jobs nor the deletion of the `after` job shift a page. NotFound when `after` never existed.
        """

    async def cancel_job(self, job_id: str, tenant_id: str, *, reason: Failure | None = None) -> Job:
        """Moves a living job to CANCELLED, its open stages too; a terminal job is returned as it is. NotFound."""

    async def delete_job(self, job_id: str, tenant_id: str) -> Job:
        """Cancels a living job and hides it from get and list; its files are for the sweeper. NotFound."""

    async def count_jobs(self, tenant_id: str | None = None) -> Mapping[JobState, int]:
        """Visible jobs of a tenant, or of all, by state; states without jobs are there too."""

    async def events(self, job_id: str, tenant_id: str, *, after: int = 0) -> Sequence[Event]:
        """The job's log behind sequence number `after`: gapless, and ended by a terminal `state`. NotFound."""

    async def segments(self, job_id: str, tenant_id: str, result: int = 0) -> Mapping[int, Sequence[SegmentFile]]:
        """What of a result is encoded so far: by chunk, both in order, each index once. A chunk that is done again
        replaces the earlier attempt's segments one by one, so that a list never shrinks under its player, and holds
        nothing else of that attempt once it is done. Empty before the first segment and after the results are swept.
        NotFound.
        """

    # -- clients' files ----------------------------------------------------------------------------------------
    async def create_file(self, tenant_id: str, file: NewFile) -> UploadedFile:
        """Writes the row of a stored file. Conflict when the id is taken."""

    async def get_file(self, file_id: str, tenant_id: str) -> UploadedFile:
        """Raises NotFound for an unknown, deleted, expired or foreign file."""

    async def list_files(
        self,
        tenant_id: str,
        *,
        after: str | None = None,
        limit: int = 20,
        newest_first: bool = True,
        purpose: str | None = None,
    ) -> FilePage:
        """Files in creation order, paged as `list_jobs`. NotFound when `after` never existed."""

    async def delete_file(self, file_id: str, tenant_id: str) -> None:
        """Hides a file from its owner; its bytes are for the sweeper. NotFound."""

    async def sweepable_files(self, *, limit: int = 64) -> Sequence[str]:
        """Deleted and expired files whose bytes are still stored."""

    async def swept_file(self, file_id: str) -> None:
        """The bytes are gone."""

    async def unknown_files(self, file_ids: Sequence[str]) -> Sequence[str]:
        """Those of the ids that no file has, deleted files included."""

    # -- the Scheduler -----------------------------------------------------------------------------------------
    async def lead(self, owner: str, ttl_s: float) -> Leadership | None:
        """Takes or renews leadership; None while somebody else holds it. A takeover raises the term."""

    async def resign(self, leadership: Leadership) -> None:
        """Gives leadership up at once (clean shutdown)."""

    async def state(self, *, worker_ttl_s: float, ready_limit: int = 256, limits: Limits | None = None) -> ClusterState:
        """What the dispatch policy decides on. Of each stage it holds at least the `ready_limit` most urgent (priority,
        deadline, age) and the `ready_limit` oldest ready rows, the first few of every tenant in both orders, and every
        ready row of a job in progress whose tenant's number of those is limited: no flood hides a stage, an old job,
        a tenant, or what a limit lets run.
        """

    async def workload(self, *, worker_ttl_s: float) -> Workload:
        """All that is ready or running, by stage, and the live replicas by pool; what the autoscaler decides on."""

    async def running(self, *, tenant_id: str | None = None, limit: int = 256) -> Sequence[RunningStage]:
        """Claimed stages, of a tenant or of all, with their newest steps, the longest running first."""

    async def dispatch(self, leadership: Leadership, refs: Sequence[StageRef]) -> Sequence[StageCall]:
        """READY → DISPATCHED with the stage's epoch raised by one; refs that are no longer READY are left out."""

    async def lose(self, call: StageCall, reason: Failure, *, max_losses: int) -> None:
        """The worker of this call is known to be dead: the stage becomes READY again, or its job FAILED when it has
        been lost `max_losses` times. A stage lost before its claim is not counted: the job had no part in it. A
        stale call changes nothing and does not raise.
        """

    async def reap(self, leadership: Leadership, *, dispatch_ttl_s: float, max_losses: int) -> Sequence[StageRef]:
        """Makes stages READY whose dispatch was not claimed within `dispatch_ttl_s`, loses those whose lease has
        expired, ends queued and running jobs past their deadline or expiry as EXPIRED. Returns the stages it took from
        a worker.
        """

    async def living(self, job_ids: Collection[str]) -> Set[str]:
        """Those of these jobs that have not ended; an unknown job has."""

    async def fail_job(self, leadership: Leadership, job_id: str, failure: Failure) -> None:
        """Ends a living job as FAILED; a terminal job stays as it is. NotFound."""

    async def sweepable(self, *, keep_s: float, limit: int = 64) -> Sequence[tuple[str, bool]]:
        """Ended jobs whose working files can go, oldest first: (job id, whether its results go too: deleted jobs, those
        past their `expires_at`, and those without one that ended `keep_s` ago). A job is listed until `swept` says it
        is done, and not before the last lease of its stages is over: until then a worker may still write.
        """

    async def result_uris(self, job_id: str) -> Set[str]:
        """Every file that is part of a job's results, whoever asks: artifacts, segments and their init segments."""

    async def unknown_jobs(self, job_ids: Sequence[str]) -> Sequence[str]:
        """Those of the ids that no job has, deleted jobs included."""

    async def swept(self, job_id: str, *, results: bool) -> None:
        """The files are gone; with the results go the rows of their segments and the settled parcels."""

    # -- workers -----------------------------------------------------------------------------------------------
    async def register(self, worker: Worker) -> None:
        """Announces a replica, seen now by the database's clock; again with the same id replaces the row."""

    async def unregister(self, worker_id: str) -> None:
        """The replica stops; its slots vanish at once."""

    # `busy_s` is the attempt's compute time so far, per device of the `devices` that it was claimed with; the ledger
    # is written when the attempt ends, from the newest value that was reported.
    async def claim(self, call: StageCall, worker_id: str, lease_s: float, *, devices: int = 1) -> StageWork | None:
        """(DISPATCHED, epoch) → CLAIMED, the job QUEUED → RUNNING with it; None for the loser of the race."""

    async def heartbeat(self, worker_id: str, beats: Sequence[Beat], lease_s: float) -> Mapping[StageRef, Verdict]:
        """Renews the worker's presence and all its leases and records progress, in one transaction."""

    async def verdicts(self, calls: Sequence[StageCall]) -> Mapping[StageRef, Verdict]:
        """Read-only: which of these calls must stop. Cheap enough for four times a second."""

    async def save_snapshot(self, call: StageCall, snapshot: Handle, step: int, *, busy_s: float = 0.0) -> None:
        """Records the newest snapshot of a claimed stage; the work up to it is not wasted any more. StaleEpoch."""

    async def add_segment(self, call: StageCall, segment: SegmentFile) -> None:
        """Lists a stored segment of a claimed stage's chunk; the same again changes nothing. StaleEpoch."""

    async def complete(
        self,
        call: StageCall,
        outputs: Mapping[str, Handle],
        artifact: Artifact | None = None,
        *,
        busy_s: float = 0.0,
        extension: Extension | None = None,
    ) -> None:
        """CLAIMED → DONE; successors whose inputs now exist become READY; a result's final stage publishes its
        artifact, which stays however the job ends, and the last of them makes the job DONE, by way of PUBLISHING, in
        the same transaction; `expires_at` is set then when the request has a ttl. `extension` becomes the job's. The
        same again changes nothing. StaleEpoch; Conflict when an output that a later stage reads is missing, or the
        final stage's artifact.
        """

    async def fail(
        self, call: StageCall, failure: Failure, *, retryable: bool, max_failures: int, busy_s: float = 0.0
    ) -> None:
        """The stage raised: READY again, or its job FAILED when not retryable or failed `max_failures` times.
        StaleEpoch.
        """

    async def release(self, call: StageCall, *, busy_s: float = 0.0) -> None:
        """The worker gives a claimed stage back undone (drain): READY again, nothing counted. StaleEpoch."""
