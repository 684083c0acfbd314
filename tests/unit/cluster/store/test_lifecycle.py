"""Random lives of a job: whatever the Scheduler, the workers and time do, the rules of the lease protocol hold."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cluster.errors import Conflict, StaleEpoch
from cluster.graphs import NodeKey, StageGraph
from cluster.records import Beat, Failure, JobState, StageCall, StageRef, StageState, Verdict, transition
from cluster.store.clients import new_stages
from cluster.store.lifecycle import Lifecycle
from cluster.store.rows import JobRow
from cluster.wiring import graph
from tests.unit.cluster.makers import ARTIFACT, EPOCH, handle
from tests.unit.cluster.store.play import PORTS

EPOCHS = st.integers(0, 1)  # how far behind the current one
SECONDS = st.floats(0, 30)
BROKEN = Failure("broken", "It broke.")
LEASE_S, DISPATCH_TTL_S, MAX_LOSSES, MAX_FAILURES = 10.0, 20.0, 3, 2
GRAPH: StageGraph = graph("r2v", 2)
STAGES = st.sampled_from(sorted(node.key for node in GRAPH.nodes))


def ref(key: NodeKey) -> StageRef:
    stage, result, chunk = key
    return StageRef("j", stage, chunk, result)


class Lives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        job = JobRow("j", deadline_at=EPOCH + timedelta(seconds=300), ends_at=EPOCH + timedelta(seconds=300))
        self.life = Lifecycle(job, new_stages(GRAPH), EPOCH)
        self.life.created()
        self.shown = 0.0
        self.state = JobState.QUEUED
        self.ended: int | None = None

    def call(self, stage: NodeKey, behind: int) -> StageCall:
        return StageCall(ref(stage), self.life.stages[stage].epoch - behind)

    def owns(self, call: StageCall) -> bool:
        row = self.life.stages[call.ref.key]
        return row.state is StageState.CLAIMED and row.epoch == call.epoch

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.life.now += timedelta(seconds=seconds)

    @rule(stage=STAGES)
    def dispatch(self, stage: NodeKey) -> None:
        row = self.life.stages[stage]
        ready, epoch = row.state is StageState.READY, row.epoch
        call = self.life.dispatch(ref(stage))
        assert (call is not None) == ready
        assert row.epoch == epoch + ready

    @rule()
    def advance(self) -> None:
        """Most random moves are refused; this one carries lives through the whole graph."""
        for row in self.life.stages.values():
            if row.state is StageState.READY:
                call = self.life.dispatch(ref(row.key))
                assert call is not None
                assert self.life.claim(call, "w", LEASE_S)
            elif row.state is StageState.CLAIMED:
                self.finish(row.key, 0, "complete")

    @rule(stage=STAGES, behind=EPOCHS)
    def claim(self, stage: NodeKey, behind: int) -> None:
        row = self.life.stages[stage]
        free = row.state is StageState.DISPATCHED and behind == 0
        assert self.life.claim(self.call(stage, behind), "w", LEASE_S) == free

    @rule(stage=STAGES, behind=EPOCHS, step=st.integers(0, 8))
    def beat(self, stage: NodeKey, behind: int, step: int) -> None:
        call = self.call(stage, behind)
        alive = self.owns(call)
        assert (self.life.beat(Beat(call, step, 8), "w", LEASE_S) is Verdict.ALIVE) == alive

    @rule(stage=STAGES, behind=EPOCHS, how=st.sampled_from(["complete", "fail", "release", "snapshot"]))
    def finish(self, stage: NodeKey, behind: int, how: str) -> None:
        call = self.call(stage, behind)
        row = self.life.stages[stage]
        told_again = how == "complete" and (row.state, row.epoch) == (StageState.DONE, call.epoch)
        owned = self.owns(call) or told_again
        try:
            if how == "complete":
                name = call.ref.stage
                self.life.complete(call, {PORTS[name]: handle(name)}, ARTIFACT if name == "decode" else None)
            elif how == "fail":
                self.life.fail(call, BROKEN, retryable=True, max_failures=MAX_FAILURES)
            elif how == "release":
                self.life.release(call)
            else:
                self.life.save_snapshot(call, handle("s"), 3)
        except StaleEpoch:
            assert not owned
        else:
            assert owned

    @rule()
    def reap(self) -> None:
        self.life.reap(DISPATCH_TTL_S, MAX_LOSSES)

    @rule(stage=STAGES, behind=EPOCHS)
    def lose(self, stage: NodeKey, behind: int) -> None:
        self.life.lose(self.call(stage, behind), BROKEN, MAX_LOSSES)

    @precondition(lambda self: self.life.now > EPOCH + timedelta(seconds=60))  # or most lives would end at once
    @rule(state=st.sampled_from([JobState.CANCELLED, JobState.FAILED]))
    def end(self, state: JobState) -> None:
        living = not self.life.job.state.terminal
        try:
            self.life.end(state, BROKEN)
        except Conflict:
            assert not living

    @invariant()
    def progress_never_falls(self) -> None:
        assert self.shown <= self.life.job.progress <= 1.0
        self.shown = self.life.job.progress

    @invariant()
    def states_follow_the_table(self) -> None:
        steps = [data["state"] for kind, data in self.life.events if kind == "state"]
        state = JobState.QUEUED
        for step in steps:
            state = transition(state, JobState(str(step)))
        assert state is self.life.job.state

    @invariant()
    def queued_exactly_until_the_first_claim(self) -> None:
        claimed = any(data.get("state") == "claimed" for kind, data in self.life.events if kind == "stage")
        assert claimed == (self.life.job.started_at is not None)
        assert not (claimed and self.life.job.state is JobState.QUEUED)

    @invariant()
    def an_ended_job_has_ended(self) -> None:
        job = self.life.job
        if not job.state.terminal:
            assert job.finished_at is None
            return
        self.ended = self.ended or len(self.life.events)
        assert len(self.life.events) == self.ended
        kind, data = self.life.events[-1]
        assert (kind, data["state"]) == ("state", job.state.value)
        over = {StageState.DONE, StageState.FAILED, StageState.CANCELLED}
        assert all(row.state in over and row.lease_until is None for row in self.life.stages.values())

    @invariant()
    def a_result_is_told_when_its_last_stage_is_done(self) -> None:
        done = {row.result for row in self.life.stages.values() if row.final and row.state is StageState.DONE}
        told = [data["index"] for kind, data in self.life.events if kind == "result"]
        assert sorted(told) == sorted(done) == sorted(self.life.published)
        assert (self.life.job.state is JobState.DONE) == (done == {0, 1})

    @invariant()
    def a_stage_waits_for_exactly_its_inputs(self) -> None:
        if self.life.job.state.terminal:
            return
        done = {key for key, row in self.life.stages.items() if row.state is StageState.DONE}
        started = {key for key, row in self.life.stages.items() if row.state is not StageState.BLOCKED}
        assert started == done | {node.key for node in GRAPH.ready(done)}

    @invariant()
    def a_lease_is_held_exactly_while_claimed(self) -> None:
        for row in self.life.stages.values():
            assert (row.lease_until is not None) == (row.state is StageState.CLAIMED)
            assert row.losses <= MAX_LOSSES
            assert row.failures <= MAX_FAILURES


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
