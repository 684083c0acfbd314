"""Spans reach a real collector, hang together, and cost nothing when nobody wants them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import ValidationError

from cluster.config import Tracing
from cluster.records import JobState, StageCall, StageRef, StageWork
from cluster.store.observer import Ended, Unobserved
from cluster.trace import Trace
from deployments.group import commands
from deployments.group.commands import Done, Failed
from deployments.group.spans import RankSpans
from deployments.tracing import OFF, TracedStore, Tracer, at_ns, now_ns
from tests.integration.watching import Collector, collecting
from tests.unit.cluster.makers import EPOCH, request

TRACE = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def tracer(collector: Collector) -> Tracer:
    return Tracer(Tracing(endpoint=collector.endpoint), "Test")


def end(trace: Trace | None, state: JobState = JobState.DONE, code: str | None = None) -> Ended:
    return Ended("j1", "acme", "m", state, code, EPOCH, EPOCH + timedelta(seconds=40), trace)


def test_spans_of_several_processes_hang_together(collector: Collector, tracer: Tracer) -> None:
    other = Tracer(Tracing(endpoint=collector.endpoint), "Other")
    TracedStore(tracer, Unobserved()).committed([end(TRACE)])
    other.span(TRACE, "j1/text", "text", now_ns(), parent="j1", attributes={"attempt": 2})
    tracer.close()
    other.close()
    by_name = {span.name: span for span in collector.spans}
    job, text = by_name["job"], by_name["text"]
    assert {job.trace, text.trace} == {TRACE.id}
    assert (job.parent, text.parent) == (TRACE.parent, job.id)
    assert (job.began_ns, job.ended_ns) == (at_ns(EPOCH), at_ns(EPOCH) + 40 * 10**9)
    assert (job.role, text.role) == ("Test", "Other")
    assert text.attributes == {"attempt": 2}
    assert not job.failed


def test_a_job_without_a_caller_is_a_root(collector: Collector, tracer: Tracer) -> None:
    TracedStore(tracer, Unobserved()).committed([end(Trace(TRACE.id), JobState.FAILED, "non_finite")])
    tracer.close()
    (job,) = collector.spans
    assert job.parent == ""
    assert job.failed


@pytest.mark.parametrize("trace", [None, Trace(TRACE.id, sampled=False)])
def test_what_nobody_records_is_not_sent(collector: Collector, tracer: Tracer, trace: Trace | None) -> None:
    TracedStore(tracer, Unobserved()).committed([end(trace)])
    tracer.close()
    assert not collector.spans


def test_off_sends_nothing_and_can_be_closed() -> None:
    assert not OFF.on
    OFF.span(TRACE, "a", "a", now_ns(), parent=None)
    OFF.close()


def test_an_absent_collector_costs_spans_only() -> None:
    tracer = Tracer(Tracing(endpoint="http://127.0.0.1:1/v1/traces"), "Test")
    for index in range(5000):
        tracer.span(TRACE, str(index), "a", now_ns(), parent=None)
    tracer.close()


@pytest.mark.parametrize("endpoint", ["collector:4317", "ftp://host/x", "http://user:password@host/v1/traces"])
def test_an_endpoint_is_an_address_without_secrets(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        Tracing(endpoint=endpoint)


def test_a_rank_tells_each_run(collector: Collector, tracer: Tracer) -> None:
    call = StageCall(StageRef("j1", "denoise"), 3, TRACE)
    work = StageWork(call, 1, "t", request(trace=TRACE), {}, None, EPOCH, None)
    spans = RankSpans(tracer, 1)
    spans.carried_out(commands.Load("m"), Done(), 5.0)
    for job in ("whole", "broken", "dropped"):
        spans.carried_out(commands.Prepare(job, work), Done(), 0.5)
        spans.carried_out(commands.Step(job), Done(1), 2.0)
    spans.carried_out(commands.Finish("whole", "key"), Done(1), 0.25)
    spans.carried_out(commands.Step("broken"), Failed("non_finite", "m", "r", False), 1.0)
    spans.carried_out(commands.Drop("dropped"), Done(), 0.0)
    spans.carried_out(commands.Drop("unknown"), Done(), 0.0)
    spans.close()
    assert [span.failed for span in collector.spans] == [False, True, False]
    whole = collector.spans[0]
    assert whole.name == "denoise on rank 1"
    assert whole.parent == TRACE.span_id(call.span)
    assert whole.attributes["step_s"] == 2.0
    assert whole.attributes["steps"] == 1
    assert len({span.id for span in collector.spans}) == 3
