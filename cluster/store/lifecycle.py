"""The life of one job as a pure state machine: rows in, changed rows and events out, the clock as data.

The store loads a locked job and its stages into a `Lifecycle`, lets it act, and writes what changed, all in one
transaction. Every rule of the lease protocol stands here once, whatever the database.

Events: `created`, then for each change of a stage `stage` (state, attempt, seconds spent in the state before), `phase`
while the job runs, `progress` (at most one a second, when the whole percent has grown), `snapshot`, `segment`, `result`
(index) when one is published, `failed` (code, message), `state`. A terminal `state` is the last event of a log; the
stages that end with their job have no event of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from cluster.deliveries import RESULT, STATE
from cluster.errors import Conflict, StaleEpoch
from cluster.records import (
    Artifact,
    Beat,
    Extension,
    Failure,
    Handle,
    JobState,
    SegmentFile,
    StageCall,
    StageRef,
    StageState,
    Verdict,
    transition,
)
from cluster.store.attempts import Attempt, Outcome, ended
from cluster.store.observer import Retry
from cluster.store.rows import JobRow, StageRow, progress, running_phase, verdict
from cluster.trace import Trace

EventData = dict[str, str | int | float | None]
PROGRESS_S = 1.0  # least time between two `progress` events of a job
HELD = frozenset({StageState.DISPATCHED, StageState.CLAIMED})
_OVER = frozenset({StageState.DONE, StageState.FAILED, StageState.CANCELLED})


class Lifecycle:
    """One job under its lock."""

    def __init__(
        self,
        job: JobRow,
        stages: Iterable[StageRow],
        now: datetime,
        *,
        ttl_s: float | None = None,
        trace: Trace | None = None,
    ) -> None:
        """`ttl_s`: how long results are kept after the end, when the request says so."""
        self.job = job
        self.stages = {stage.key: stage for stage in sorted(stages, key=lambda stage: stage.position)}
        self.now = now
        self.ttl_s = ttl_s
        self.trace = trace
        self.published: dict[int, Artifact] = {}  # by this lifecycle, by result
        self.events: list[tuple[str, EventData]] = []
        self.ended: list[Attempt] = []  # for the ledger
        self.retries: list[Retry] = []

    # -- the Scheduler -----------------------------------------------------------------------------------------
    def created(self) -> None:
        """The first events: the job, and the stages that need nothing."""
        self._tell("created", {"state": self.job.state.value})
        self._unblock()

    def dispatch(self, ref: StageRef) -> StageCall | None:
        """READY → DISPATCHED under a new epoch; None when the stage is not READY."""
        stage = self.stages.get(ref.key)
        if stage is None or stage.state is not StageState.READY:
            return None
        stage.epoch += 1
        stage.dispatched_at = self.now
        self._move(stage, StageState.DISPATCHED, since=stage.ready_at)
        return StageCall(ref, stage.epoch, self.trace)

    def lose(self, call: StageCall, reason: Failure, max_losses: int) -> None:
        """The worker died. A stage that nobody had claimed is dispatched again without being counted."""
        stage = self.stages.get(call.ref.key)
        if stage is None or stage.epoch != call.epoch or stage.state not in HELD:
            return
        again = stage.losses + (stage.state is StageState.CLAIMED) < max_losses
        if stage.state is StageState.CLAIMED:
            stage.losses += 1
            self._account(stage, Outcome.LOST, reason, goes_on=again)
        if again:
            self._requeue(stage, reason)
        else:
            self._fail_stage(stage, reason)
        self._settle()

    def reap(self, dispatch_ttl_s: float, max_losses: int) -> list[StageRef]:
        """What time alone has decided; returns the stages it touched."""
        if self.job.state in (JobState.QUEUED, JobState.RUNNING) and _before(self.job.ends_at, self.now):
            held = [self._ref(stage) for stage in self.stages.values() if stage.state in HELD]
            late = self.job.deadline_at is not None and self.job.deadline_at <= self.now
            told = ("deadline_exceeded", "by its deadline") if late else ("expired", "before it expired")
            self.end(JobState.EXPIRED, Failure(told[0], f"The job was not finished {told[1]}."))
            return held
        touched = []
        for stage in self.stages.values():
            if stage.state is StageState.DISPATCHED and _before(stage.dispatched_at, self.now, dispatch_ttl_s):
                self._requeue(stage, Failure("not_claimed", "No worker took the stage in time."))
            elif stage.state is StageState.CLAIMED and _before(stage.lease_until, self.now):
                reason = Failure("worker_lost", f"The worker of stage {stage.stage} stopped answering.")
                self.lose(StageCall(self._ref(stage), stage.epoch), reason, max_losses)
            else:
                continue
            touched.append(self._ref(stage))
        self._settle()
        return touched

    def end(self, state: JobState, failure: Failure | None) -> None:
        """Moves a living job to a terminal state, its open stages to CANCELLED; published results stay. Conflict."""
        self.job.state = transition(self.job.state, state)
        self.job.failure = failure
        results = any(stage.final and stage.state is StageState.DONE for stage in self.stages.values())
        kept = results and self.ttl_s is not None
        self.job.expires_at = self.now + timedelta(seconds=self.ttl_s or 0.0) if kept else None
        leases = [stage.lease_until for stage in self.stages.values() if stage.lease_until is not None]
        self._close_stages(Outcome.EXPIRED if state is JobState.EXPIRED else Outcome.CANCELLED, failure)
        self.job.finished_at = self.now
        # A worker may write files until it hears of the end, at the latest when its lease runs out.
        self.job.sweep_at = max([self.now, *leases])
        self.job.phase = state.value
        told: EventData = {} if failure is None else {"code": failure.code, "message": failure.message}
        if state in (JobState.FAILED, JobState.EXPIRED):
            self._tell("failed", told)
        self._tell(STATE, {"state": state.value, **told})

    # -- workers -----------------------------------------------------------------------------------------------
    def claim(self, call: StageCall, worker: str, lease_s: float, devices: int = 1) -> bool:
        """(DISPATCHED, epoch) → CLAIMED; False for everybody but the first."""
        stage = self.stages.get(call.ref.key)
        if stage is None or (stage.state, stage.epoch) != (StageState.DISPATCHED, call.epoch):
            return False
        stage.attempt += 1
        stage.worker = worker
        stage.devices, stage.busy_s, stage.saved_s = devices, 0.0, 0.0
        stage.claimed_at = self.now
        stage.lease_until = self.now + timedelta(seconds=lease_s)
        self._move(stage, StageState.CLAIMED, since=stage.dispatched_at, worker=worker)
        if self.job.state is JobState.QUEUED:
            self.job.state = transition(self.job.state, JobState.RUNNING)
            self.job.started_at = self.now
            self._tell(STATE, {"state": self.job.state.value})
        self._settle()
        return True

    def beat(self, beat: Beat, worker: str, lease_s: float) -> Verdict:
        """Renews the lease of a stage that this worker holds and records its step."""
        verdict = self.verdict(beat.call)
        if verdict is not Verdict.ALIVE:
            return verdict
        stage = self._owned(beat.call)
        if stage.worker != worker:
            return Verdict.STALE
        stage.lease_until = self.now + timedelta(seconds=lease_s)
        stage.step, stage.steps = beat.step, beat.steps
        stage.busy_s = max(stage.busy_s, beat.busy_s)
        self._settle()
        self._tell_progress(stage)
        return verdict

    def verdict(self, call: StageCall) -> Verdict:
        """What the holder of this call must do."""
        stage = self.stages.get(call.ref.key)
        return Verdict.STALE if stage is None else verdict(stage.state, stage.epoch, call.epoch)

    def save_snapshot(self, call: StageCall, snapshot: Handle, step: int, busy_s: float = 0.0) -> None:
        """Where the next attempt may go on. StaleEpoch."""
        stage = self._owned(call, busy_s)
        stage.saved_s = max(stage.saved_s, busy_s)
        stage.snapshot, stage.snapshot_step = snapshot, step
        stage.step = max(stage.step, step)
        self._tell("snapshot", {**_named(stage), "step": step})
        self._settle()

    def add_segment(self, call: StageCall, segment: SegmentFile) -> None:
        """One more piece of the video can be watched. StaleEpoch."""
        stage = self._owned(call)
        length: EventData = {"index": segment.index, "first_frame": segment.first_frame, "frames": segment.frames}
        self._tell("segment", {**_named(stage), **length})

    def complete(
        self,
        call: StageCall,
        outputs: Mapping[str, Handle],
        artifact: Artifact | None,
        busy_s: float = 0.0,
        extension: Extension | None = None,
    ) -> None:
        """CLAIMED → DONE, successors READY; a final stage publishes its result, the last of them ends the job:
        PUBLISHING, and DONE with it. StaleEpoch, Conflict.
        """
        known = self.stages.get(call.ref.key)
        if known is not None and (known.state, known.epoch) == (StageState.DONE, call.epoch):
            return  # told already: the worker did not hear the answer
        stage = self._owned(call, busy_s)
        read = {s.port for other in self.stages.values() for s in other.inputs.values() if s.key == stage.key}
        if missing := read - outputs.keys():
            raise Conflict(f"Stage {stage.stage} must write {', '.join(sorted(missing))}: a later stage reads it.")
        if stage.final and artifact is None:
            raise Conflict(f"Stage {stage.stage} is its result's last and must name the artifact.")
        self._account(stage, Outcome.DONE, None)
        stage.outputs = dict(outputs)
        self.job.extension = extension or self.job.extension
        stage.done_at = self.now
        stage.lease_until = None
        self._move(stage, StageState.DONE, since=stage.claimed_at)
        if stage.final and artifact is not None:
            self.published[stage.result] = artifact
            self._tell(RESULT, {"index": stage.result})
        if all(other.state is StageState.DONE for other in self.stages.values() if other.final):
            self.job.state = transition(self.job.state, JobState.PUBLISHING)
            self.job.progress = 1.0
            self._tell(STATE, {"state": self.job.state.value})
            self.end(JobState.DONE, None)
        else:
            self._unblock()
        self._settle()

    def fail(self, call: StageCall, failure: Failure, retryable: bool, max_failures: int, busy_s: float = 0.0) -> None:
        """The stage raised: again, or the end of the job. StaleEpoch."""
        stage = self._owned(call, busy_s)
        stage.failures += 1
        again = retryable and stage.failures < max_failures
        self._account(stage, Outcome.FAILED, failure, goes_on=again)
        if again:
            self._requeue(stage, failure)
        else:
            self._fail_stage(stage, failure)
        self._settle()

    def release(self, call: StageCall, busy_s: float = 0.0) -> None:
        """Given back undone: READY again as if never claimed. StaleEpoch."""
        stage = self._owned(call, busy_s)
        self._account(stage, Outcome.RELEASED, None, goes_on=True)
        stage.attempt -= 1
        self._requeue(stage, None)
        self._settle()

    # -- inside ------------------------------------------------------------------------------------------------
    def _owned(self, call: StageCall, busy_s: float = 0.0) -> StageRow:
        stage = self.stages.get(call.ref.key)
        if stage is None or (stage.state, stage.epoch) != (StageState.CLAIMED, call.epoch):
            raise StaleEpoch(
                f"Epoch {call.epoch} of {call.ref} does not own the stage any more; stop and write nothing."
            )
        stage.busy_s = max(stage.busy_s, busy_s)
        return stage

    def _account(self, stage: StageRow, outcome: Outcome, reason: Failure | None, *, goes_on: bool = False) -> None:
        code = None if reason is None else reason.code
        self.ended.append(ended(stage, self.now, outcome, code, goes_on=goes_on))

    def _unblock(self) -> None:
        done = {key for key, stage in self.stages.items() if stage.state is StageState.DONE}
        for stage in self.stages.values():
            if stage.state is StageState.BLOCKED and all(source.key in done for source in stage.inputs.values()):
                stage.ready_at = self.now
                self._move(stage, StageState.READY)

    def _requeue(self, stage: StageRow, reason: Failure | None) -> None:
        stage.worker = stage.dispatched_at = stage.claimed_at = stage.lease_until = None
        stage.ready_at = self.now
        stage.step = stage.snapshot_step
        self.retries.append(Retry(stage.stage, Outcome.RELEASED.value if reason is None else reason.code))
        self._move(stage, StageState.READY, reason=reason)

    def _fail_stage(self, stage: StageRow, reason: Failure) -> None:
        stage.lease_until = None
        self._move(stage, StageState.FAILED, reason=reason)
        self.end(JobState.FAILED, reason)

    def _close_stages(self, outcome: Outcome, reason: Failure | None) -> None:
        for stage in self.stages.values():
            if stage.state is StageState.CLAIMED:
                self._account(stage, outcome, reason)
            if stage.state not in _OVER:
                stage.state = StageState.CANCELLED
                stage.lease_until = None

    def _move(
        self,
        stage: StageRow,
        to: StageState,
        *,
        since: datetime | None = None,
        worker: str | None = None,
        reason: Failure | None = None,
    ) -> None:
        stage.state = to
        data: EventData = {**_named(stage), "state": to.value, "attempt": stage.attempt}
        if since is not None:
            data["seconds"] = (self.now - since).total_seconds()
        if worker is not None:
            data["worker"] = worker
        if reason is not None:
            data |= {"code": reason.code, "message": reason.message}
        self._tell("stage", data)

    def _settle(self) -> None:
        """Derives progress and phase of a running job from its stages."""
        if self.job.state is not JobState.RUNNING:
            return
        self.job.progress = max(self.job.progress, progress(self.stages.values()))
        phase = running_phase(self.stages.values())
        if phase != self.job.phase:
            self.job.phase = phase
            self._tell("phase", {"phase": phase, "progress": self.job.progress})

    def _tell_progress(self, stage: StageRow) -> None:
        percent = int(self.job.progress * 100)
        if percent > self.job.told_percent and _before(self.job.told_at or self.job.started_at, self.now, PROGRESS_S):
            self.job.told_percent, self.job.told_at = percent, self.now
            steps: EventData = {"step": stage.step, "steps": stage.steps}
            self._tell("progress", {"progress": self.job.progress, **_named(stage), **steps})

    def _ref(self, stage: StageRow) -> StageRef:
        return StageRef(self.job.id, stage.stage, stage.chunk, stage.result)

    def _tell(self, kind: str, data: EventData) -> None:
        self.events.append((kind, data))


def _named(stage: StageRow) -> EventData:
    return {"stage": stage.stage, "result": stage.result, "chunk": stage.chunk}


def _before(at: datetime | None, now: datetime, ttl_s: float = 0.0) -> bool:
    return at is not None and at + timedelta(seconds=ttl_s) <= now
